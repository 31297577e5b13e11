"""A definition of tables is read, or refused with its fix."""

import json
import random
from typing import Any

import pytest

from cdi_dagster.core.collections import REGISTRY, find_collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.demo.sample_records import moment_of, plain_record
from cdi_dagster.spark.tables.definition import Showing, TableKind, TableSet, parse_table_set, shipped_table_set
from cdi_dagster_tests.spark.tables.daily_records import DAY

COLUMN = {"name": "a", "path": ["A"], "type": "string", "secured": "keep", "redacted": "mask"}
DEFINITION = {
    "format_version": 1,
    "raw": "d.raw",
    "managed": "d.managed",
    "secured": "d.sec",
    "redacted": "d.red",
    "columns": [COLUMN],
}


def parsed(**changes: Any) -> TableSet:
    return parse_table_set(json.dumps({**DEFINITION, **changes}).encode(), source="mine.json")


def test_every_registered_collection_with_tables_has_a_shipped_definition() -> None:
    for collection in REGISTRY:
        if collection.tables:
            assert shipped_table_set(collection.tables).columns


def test_the_shipped_audit_columns_are_those_of_the_sample_records() -> None:
    audit = find_collection("data:businessAudit")
    context = plain_record(audit, "1", moment_of(DAY, random.Random(1)), random.Random(1))["context"]
    paths = {column.path for column in shipped_table_set("audit").columns}

    def leaves(value: Any, path: tuple[str, ...]) -> set[tuple[str, ...]]:
        if not isinstance(value, dict):
            return {path}
        return {leaf for key, below in value.items() for leaf in leaves(below, (*path, key))}

    made_by_the_transform = {("AUDIT_EVENT",), ("TIME_STAMP_ORIG",)}
    assert paths - made_by_the_transform <= leaves(context, ())


def test_the_redacted_view_keeps_nothing_that_names_a_person() -> None:
    shown = dict(shipped_table_set("audit").columns_shown(TableKind.REDACTED))
    personal = ("_first_name", "_last_name", "_address_line1", "_date_of_birth", "_nino", "_ip", "notes", "changes")
    kept = [column.name for column, showing in shown.items() if showing is Showing.KEEP]
    assert [name for name in kept if name.endswith(personal)] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": 2}, "this version reads 1"),
        ({"managed": "managed"}, '"database.name"'),
        ({"managed": "d.Managed"}, "lower case"),
        ({"managed": "d.raw"}, "different names"),
        ({"colums": []}, "unknown setting 'colums'"),
        ({"columns": []}, "at least one column"),
        ({"columns": ["a"]}, "column 1 must be a JSON object"),
        ({"columns": [{**COLUMN, "name": "A"}]}, "lower case"),
        ({"columns": [{**COLUMN, "name": "date_str"}]}, "partition column"),
        ({"columns": [COLUMN, COLUMN]}, "two columns have the name a"),
        ({"columns": [{**COLUMN, "path": []}]}, "list of keys"),
        ({"columns": [{**COLUMN, "path": ["a", 1]}]}, "list of keys"),
        ({"columns": [{**COLUMN, "type": "text"}]}, "use string, boolean"),
        ({"columns": [{**COLUMN, "type": "decimal(39,2)"}]}, "digits go from 1 to 38"),
        ({"columns": [{**COLUMN, "type": "decimal(4,5)"}]}, "scale up to digits"),
        (
            {"columns": [{key: value for key, value in COLUMN.items() if key != "redacted"}]},
            'column a needs "redacted"',
        ),
        ({"columns": [{**COLUMN, "secured": "show"}]}, "one of keep, mask, hash, drop"),
        ({"columns": [{**COLUMN, "type": "date"}]}, "only text can be masked"),
        ({"columns": [{**COLUMN, "redacted": "drop"}]}, 'every column is "drop" in "redacted"'),
    ],
)
def test_a_wrong_definition_is_refused_with_what_is_wrong(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CdiError) as refused:
        parsed(**changes)
    assert refused.value.failure_class is FailureClass.INPUT_INVALID
    assert said in refused.value.cause
    assert "mine.json" in refused.value.cause
    assert "--table-config" in refused.value.next_step


def test_text_that_is_not_json_is_refused() -> None:
    with pytest.raises(CdiError, match="not JSON"):
        parse_table_set(b"columns:\n- a", source="mine.yaml")


def test_a_key_may_be_written_without_a_list() -> None:
    assert parsed(columns=[{**COLUMN, "path": "a.b"}]).columns[0].path == ("a.b",)
