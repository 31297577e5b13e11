"""A definition of tables is read, or refused with everything that is wrong in it: place, line and fix."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.table_definition import Showing, TableDefinition, TableKind
from cdi_dagster.core.table_definition_text import parse_table_definition

TABLES = (
    {"name": "d.red", "kind": "table"},
    {"name": "d.Sec", "kind": "view", "about": "Everything."},
    {"name": "d.managed", "kind": "managed"},
    {"name": "d.raw", "kind": "raw"},
)
COLUMN = {"name": "a", "path": ["A"], "type": "string", "shown": {"sec": "keep", "red": "mask"}}
OLD_COLUMN = {"name": "a", "path": ["A"], "type": "string", "secured": "keep", "redacted": "mask"}
OLD = {
    "format_version": 1,
    "about": "as before",
    "raw": "d.raw",
    "managed": "d.managed",
    "secured": "d.sec",
    "redacted": "d.red",
    "columns": [OLD_COLUMN],
}


def parsed(**changes: Any) -> TableDefinition:
    value = {"format_version": 2, "tables": TABLES, "columns": [COLUMN], **changes}
    return parse_table_definition(json.dumps(value, indent=1).encode(), source="mine.json")


def problems(text: str) -> list[str]:
    with pytest.raises(CdiError) as refused:
        parse_table_definition(text.encode(), source="mine.json")
    assert refused.value.failure_class is FailureClass.INPUT_INVALID
    assert "mine.json" in refused.value.cause
    found: list[str] = refused.value.detail["problems"]
    assert all(problem in refused.value.cause for problem in found[:20])
    return found


def with_column(**changes: Any) -> dict[str, Any]:
    return {"columns": [{**COLUMN, **changes}]}


def test_tables_are_published_raw_first_and_those_over_managed_last() -> None:
    assert [(table.name, table.kind) for table in parsed().tables] == [
        ("d.raw", TableKind.RAW),
        ("d.managed", TableKind.MANAGED),
        ("d.red", TableKind.TABLE),
        ("d.sec", TableKind.VIEW),
    ]


def test_each_table_has_the_columns_that_it_shows() -> None:
    number = {"name": "1_Day", "path": "d.ay", "type": "bigint", "shown": {"sec": "drop", "red": "hash"}}
    columns = {
        table.short_name: [(column.name, column.showing, column.shown_type) for column in table.columns]
        for table in parsed(columns=[COLUMN, number]).tables
    }
    assert columns == {
        "raw": [("val", Showing.KEEP, "string")],
        "managed": [("a", Showing.KEEP, "string"), ("1_day", Showing.KEEP, "bigint")],
        "sec": [("a", Showing.KEEP, "string")],
        "red": [("a", Showing.MASK, "string"), ("1_day", Showing.HASH, "string")],
    }


def test_any_number_of_tables_is_a_definition() -> None:
    only_raw = parsed(tables=[{"name": "d.raw", "kind": "raw"}], columns=[])
    assert [table.short_name for table in only_raw.tables] == ["raw"]
    many = [{"name": f"d.t{number}", "kind": "table"} for number in range(9)]
    shown = {f"t{number}": "keep" for number in range(9)}
    more = parsed(tables=[{"name": "d.m", "kind": "managed"}, *many], columns=[{**COLUMN, "shown": shown}])
    assert len(more.tables) == 10


def test_a_definition_of_version_1_is_read_as_four_tables() -> None:
    old = parse_table_definition(json.dumps(OLD).encode(), source="old.json")
    assert [(table.name, table.kind) for table in old.tables] == [
        ("d.raw", TableKind.RAW),
        ("d.managed", TableKind.MANAGED),
        ("d.sec", TableKind.VIEW),
        ("d.red", TableKind.VIEW),
    ]
    assert [table.columns[0].showing for table in old.tables[2:]] == [Showing.KEEP, Showing.MASK]


def test_a_decimal_has_digits_and_scale() -> None:
    money = parsed(**with_column(type="decimal(38,2)", shown={"sec": "keep", "red": "keep"})).managed
    assert money is not None
    assert money.columns[0].type == "decimal(38,2)"


def test_the_digest_is_of_the_text() -> None:
    assert parsed().sha256 == parsed().sha256 != parsed(about="another").sha256


@pytest.mark.parametrize(
    ("changes", "place", "fix"),
    [
        ({"format_version": 3}, "format_version (line 2)", "write 2"),
        ({"colums": []}, "colums (line ", "known here are format_version, about, tables, columns"),
        ({"tables": []}, "tables (line 3)", "at least one table"),
        ({"tables": ["raw"]}, "tables[0] (line 4)", '{"name": "database.name", "kind": "raw"}'),
        ({"tables": [{"name": "raw", "kind": "raw"}]}, "tables[0].name (line 5)", 'write "database.name"'),
        ({"tables": [{"name": "d.a-b", "kind": "raw"}]}, "tables[0].name (line 5)", "letters, digits and _"),
        ({"tables": [{"name": "d.a", "kind": "orc"}]}, "tables[0].kind (line 6)", "raw, managed, view, table"),
        ({"tables": [*TABLES, {"name": "e.RAW", "kind": "view"}]}, "tables[4].name", "give it another name"),
        ({"tables": [{"name": "e.daily_records", "kind": "raw"}]}, "tables[0].name", "give it another name"),
        ({"tables": [*TABLES, {"name": "e.raw2", "kind": "raw"}]}, "tables[4].kind", "a definition has one"),
        ({"tables": [{"name": "d.a", "kind": "view"}]}, "tables (line 3)", 'no table of the kind "managed": add it'),
        ({"tables": [{"name": "d.a", "kind": "raw"}]}, "columns (line ", 'of the kind "managed", and there is none'),
        (
            {"tables": [{"name": "d.a", "kind": "view", "replaces": "view"}]},
            "tables[0].replaces (line 7)",
            'only a view can replace a "table"',
        ),
        ({"columns": []}, "columns (line ", "at least one column"),
        ({"columns": ["a"]}, "columns[0] (line ", "must be an object"),
        (with_column(name="a b"), "columns[0].name (line ", "letters, digits and _"),
        (with_column(name="Date_Str"), "columns[0].name", "partition column"),
        ({"columns": [COLUMN, {**COLUMN, "name": "A"}]}, "columns[1].name", "is a, as columns[0].name (line "),
        (with_column(path=[]), "columns[0].path", "list of keys"),
        (with_column(path=["a", 1]), "columns[0].path", "list of keys"),
        (
            with_column(type="text"),
            "columns[0].type",
            "write string, boolean, int, bigint, double, date",
        ),
        (with_column(type="decimal(39,2)"), "columns[0].type", "1 to 38 digits"),
        (with_column(type="decimal(4,5)"), "columns[0].type", "scale in them"),
        (with_column(type="decimal(0,0)"), "columns[0].type", "1 to 38 digits"),
        (with_column(shown={"sec": "keep"}), "columns[0].shown.red (line ", "write one of keep, mask, hash, drop"),
        (with_column(shown={"sec": "keep", "red": "show"}), "columns[0].shown.red", "is 'show'; write one of"),
        (with_column(shown={**COLUMN["shown"], "rad": "keep"}), "columns[0].shown.rad", "correct the name"),  # type: ignore[dict-item]
        (with_column(shown="keep"), "columns[0].shown", "what each of red, sec shows"),
        (with_column(type="date"), "columns[0].shown.red", "the column is date: drop it"),
        (with_column(type="double", shown={"sec": "keep", "red": "hash"}), "columns[0].shown.red", "drop it"),
        (with_column(shown={"sec": "keep", "red": "drop"}), "columns (line ", 'all "drop" in red'),
        (with_column(secured="keep"), "columns[0].secured", "is unknown"),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_its_fix(changes: Mapping[str, Any], place: str, fix: str) -> None:
    value = {"format_version": 2, "tables": TABLES, "columns": [COLUMN], **changes}
    found = problems(json.dumps(value, indent=1))
    assert any(place in problem and fix in problem for problem in found), found


def test_everything_wrong_is_reported_at_once() -> None:
    columns = [{**COLUMN, "name": f"c{number}", "type": "text"} for number in range(30)]
    found = problems(json.dumps({"format_version": 2, "tables": TABLES, "columns": columns}))
    assert len(found) == 30
    with pytest.raises(CdiError, match="and 10 more"):
        parsed(columns=columns)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("columns:\n- a", "line 1, column 1: not JSON"),
        ('{\n "a": 1\n "b": 2\n}', "line 3, column 2: not JSON"),
        ("[" * 100_000, "not JSON in UTF-8"),
        ("[]", "must be an object"),
        ('{"format_version": 2,\n"tables": [],\n"tables": []}', "tables (line 3) is there twice; keep one"),
    ],
)
def test_a_text_that_is_no_definition_is_refused(text: str, problem: str) -> None:
    assert any(problem in found for found in problems(text))


def test_a_key_of_an_object_that_is_there_twice_is_refused() -> None:
    text = json.dumps({"format_version": 2, "tables": TABLES, "columns": [COLUMN]}, indent=1)
    twice = text.replace('"red": "mask"', '"red": "mask",\n"red": "keep"')
    assert problems(twice) == ["columns[0].shown.red (line 32) is there twice; keep one"]


def test_a_key_may_be_written_without_a_list() -> None:
    managed = parsed(**with_column(path="a.b")).managed
    assert managed is not None
    assert managed.columns[0].path == ("a.b",)


def test_tables_are_found_by_name_in_the_order_of_the_definition() -> None:
    definition = parsed()
    assert [table.short_name for table in definition.named(["sec", "raw"])] == ["raw", "sec"]
    for wrong in ([], ["raw", "views"]):
        with pytest.raises(ValueError, match="must be some of raw, managed, red, sec"):
            definition.named(wrong)
