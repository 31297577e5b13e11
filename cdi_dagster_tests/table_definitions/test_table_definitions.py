"""Where definitions come from: shipped, or from the settings; checked where the code location is loaded."""

import json
import random
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cdi_dagster.core.collections import REGISTRY, find_collection
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.table_definition import Showing, TableDefinition
from cdi_dagster.core.table_definition_text import parse_table_definition
from cdi_dagster.definitions import build_definitions
from cdi_dagster.demo.sample_records import moment_of, plain_record
from cdi_dagster.settings import SettingsError, load_settings
from cdi_dagster.storage import open_storage
from cdi_dagster.table_definitions import (
    all_with_tables,
    publish_copy,
    read_table_definition,
    shipped_table_definition,
    with_tables,
)
from cdi_dagster_tests.collections import AUDIT, CLAIMANT, EQUALITY
from cdi_dagster_tests.dagster_day import DAY
from cdi_dagster_tests.s3_server import new_s3_storage, s3_endpoint

TEXT = json.dumps(
    {
        "format_version": 2,
        "tables": [{"name": "lab.equality", "kind": "managed"}],
        "columns": [{"name": "1_abroad_for_more_than_one_month", "path": ["abroad"], "type": "boolean"}],
    },
    indent=1,
).encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "my tables [1].json"
    path.write_bytes(TEXT)
    return path


def shipped_audit() -> TableDefinition:
    definition = shipped_table_definition(AUDIT)
    assert definition is not None
    return definition


def test_the_shipped_audit_columns_are_those_of_the_sample_records() -> None:
    context = plain_record(AUDIT, "1", moment_of(DAY, random.Random(1)), random.Random(1))["context"]
    managed = shipped_audit().managed
    assert managed is not None

    def leaves(value: Any, path: tuple[str, ...]) -> set[tuple[str, ...]]:
        if not isinstance(value, dict):
            return {path}
        return {leaf for key, below in value.items() for leaf in leaves(below, (*path, key))}

    made_by_the_transform = {("AUDIT_EVENT",), ("TIME_STAMP_ORIG",)}
    assert {column.path for column in managed.columns} - made_by_the_transform <= leaves(context, ())


def test_the_shipped_redacted_view_keeps_nothing_that_names_a_person() -> None:
    (redacted,) = shipped_audit().named(["auditlog_red_v"])
    personal = ("_first_name", "_last_name", "_address_line1", "_date_of_birth", "_nino", "_ip", "notes", "changes")
    kept = [column.name for column in redacted.columns if column.showing is Showing.KEEP]
    assert [name for name in kept if name.endswith(personal)] == []


def test_the_shipped_equality_table_has_the_columns_that_downstream_products_read() -> None:
    definition = shipped_table_definition(EQUALITY)
    assert definition is not None
    (table,) = definition.tables
    assert {column.name: column.type for column in table.columns} == {
        **dict.fromkeys(("type", "claimantid", "ethnicgroup", "ethnicitysubgroup", "sexualorientation"), "string"),
        **dict.fromkeys(("religion", "maritalstatus"), "string"),
        "load_date": "date",
    }
    answers = plain_record(EQUALITY, "1", moment_of(DAY, random.Random(1)), random.Random(1))
    made_by_the_transform = {"@type", "_lastModifiedDateTime"}
    assert {column.path[0] for column in table.columns} - made_by_the_transform == set(answers)


def test_a_collection_without_a_definition_has_no_tables(tmp_path: Path) -> None:
    assert with_tables(CLAIMANT, {}).tables is None
    files_only = load_settings(home=tmp_path, table_definitions='{"data:businessAudit": null}')
    assert with_tables(AUDIT, files_only.table_definitions).tables is None


def test_a_definition_is_read_from_a_path_a_file_uri_and_s3(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    s3 = new_s3_storage()
    s3.write("config/tables.json", TEXT)
    for written in (str(path), path.as_uri(), f"{s3.root}/config/tables.json"):
        assert read_table_definition(written).text == TEXT


@pytest.mark.parametrize("written", ["/nowhere/tables.json", "file:///nowhere/tables.json", "https://host/a.json"])
def test_a_definition_that_is_not_there_is_refused_with_its_place(written: str) -> None:
    with pytest.raises(CdiError, match="cannot be read") as refused:
        read_table_definition(written)
    assert written in refused.value.cause


def test_a_job_reads_a_copy_under_the_digest_of_what_was_checked(path: Path, tmp_path: Path) -> None:
    published = open_storage((tmp_path / "published").as_uri())
    definition = read_table_definition(str(path))
    uri = publish_copy(published, definition)
    path.write_text("changed meanwhile")
    assert publish_copy(published, definition) == uri
    assert definition.sha256 in uri
    assert read_table_definition(uri).text == TEXT


def test_a_table_of_two_collections_is_refused(path: Path) -> None:
    configured = {AUDIT.id: str(path), EQUALITY.id: str(path)}
    with pytest.raises(CdiError, match=r"both publish lab\.equality"):
        all_with_tables(REGISTRY, configured)


def test_the_configured_definition_gives_the_assets(path: Path, tmp_path: Path) -> None:
    setting = json.dumps({EQUALITY.id: str(path)})
    definitions = build_definitions(settings=load_settings(home=tmp_path, table_definitions=setting))
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    assert "lab.equality" in (specs["equality/equality"].description or "")
    assert "business_audit/auditlog_raw" in specs
    job = definitions.resolve_job_def("equality_daily")
    assert dg.AssetKey(["equality", "equality"]) in job.asset_layer.executable_asset_keys


def test_a_definition_that_cannot_be_used_fails_the_code_location_with_place_line_and_fix(
    path: Path, tmp_path: Path
) -> None:
    path.write_bytes(TEXT.replace(b'"boolean"', b'"bool"').replace(b"lab.equality", b"equality"))
    settings = load_settings(home=tmp_path, table_definitions={EQUALITY.id: str(path)})
    with pytest.raises(dg.DagsterInvalidDefinitionError) as refused:
        build_definitions(settings=settings)
    lines = str(refused.value).splitlines()
    assert str(path) in lines[0]
    assert lines[1].strip().startswith("tables[0].name (line 5) is 'equality'; write \"database.name\"")
    assert lines[2].strip().startswith("columns[0].type (line 15) is 'bool'; write string, boolean")


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("tables.json", 'write {"data:businessAudit": "/etc/cdi/audit_tables.json"}'),
        ('{"data:businessAudit": 1}', "not a JSON object of paths"),
        ('{"data:busnessAudit": "a.json"}', "did you mean data:businessAudit?"),
        ('{"businessAudit": "a.json"}', "write it as db:name"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_with_its_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, problem: str
) -> None:
    monkeypatch.setenv("CDI_TABLE_DEFINITIONS", setting)
    with pytest.raises(SettingsError, match="CDI_TABLE_DEFINITIONS") as refused:
        load_settings(home=tmp_path)
    assert problem in str(refused.value)


def _of_snapshots(**changed: object) -> bytes:
    table = {"name": "lab.parts", "kind": "snapshot", "columns": [{"name": "n", "path": "n", "type": "int"}]}
    return json.dumps({"format_version": 2, "tables": [{**table, **changed}]}).encode()


def test_each_table_of_a_snapshot_has_columns_of_its_own() -> None:
    definition = parse_table_definition(_of_snapshots(), source="mine")
    assert definition.is_of_snapshots
    (table,) = definition.tables
    assert (table.is_partitioned, [(column.name, column.path) for column in table.columns]) == (False, [("n", ("n",))])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (_of_snapshots(columns=[]), "must be a list of at least one column"),
        (_of_snapshots(columns=[{"name": "n", "path": "n", "type": "long"}]), "tables[0].columns[0].type"),
        (_of_snapshots(kind="raw"), 'are of a table of the kind "snapshot" only'),
        (_of_snapshots(replaces="view"), "only a view can replace"),
        (
            json.dumps(
                {
                    "format_version": 2,
                    "tables": [json.loads(_of_snapshots())["tables"][0], {"name": "lab.raw", "kind": "raw"}],
                }
            ).encode(),
            "is beside others",
        ),
    ],
)
def test_what_is_wrong_with_a_table_of_a_snapshot_is_named(text: bytes, problem: str) -> None:
    with pytest.raises(CdiError) as refused:
        parse_table_definition(text, source="mine")
    assert problem in refused.value.cause


def test_the_configured_definition_of_a_keyed_collection_gives_the_tables_of_its_snapshot(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_bytes(_of_snapshots())

    def assets(path: Path | None) -> set[str]:
        setting = json.dumps({"calculator:calculationParts": str(path) if path else None})
        definitions = build_definitions(settings=load_settings(home=tmp_path, table_definitions=setting))
        keys = (spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs())
        return {key.removeprefix("calculation_parts/") for key in keys if key.startswith("calculation_parts/")}

    assert assets(tmp_path / "mine.json") == {"daily_rows", "snapshot", "parts"}
    assert assets(None) == {"daily_rows", "snapshot"}


def test_keyed_collections_have_tables_of_snapshots_and_no_others(tmp_path: Path) -> None:
    parts, audit = find_collection("calculator:calculationParts"), find_collection("data:businessAudit")
    shipped = with_tables(parts, {})
    assert shipped.table_names == ()  # of a day
    assert shipped.snapshot_tables is not None
    assert [table.name for table in shipped.snapshot_tables.tables] == [
        "uc_lab_staging.src_calculator_parts",
        "uc_lab_staging.src_childcare_entitlement",
        "uc_lab_staging.src_calculator_calculationparts_housing_calculation",
    ]
    mine = tmp_path / "mine.json"
    mine.write_bytes(_of_snapshots())
    assert with_tables(parts, {parts.id: str(mine)}).snapshot_tables is not None
    with pytest.raises(CdiError, match="is no definition for data:businessAudit"):
        with_tables(audit, {audit.id: str(mine)})
