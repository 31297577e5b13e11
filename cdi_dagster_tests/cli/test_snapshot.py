"""cdi snapshot without Spark: what it refuses, and adopting a snapshot of the old system."""

import json
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner
from freezegun import freeze_time

from cdi_dagster.cli.app import cdi
from cdi_dagster.core.storage_keys import snapshot_prefix
from cdi_dagster.ingestion.steps import snapshot_step, snapshot_tables_step
from cdi_dagster.published.snapshots import read_snapshot_mark, snapshot_of
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster.table_definitions import with_tables
from cdi_dagster_tests.scripted_snapshot import PARTS, ScriptedSnapshots, publish_days

FRIDAY = date(2023, 6, 2)
TABLES = (
    "tables (uc_lab_staging.src_calculator_parts, uc_lab_staging.src_childcare_entitlement, "
    "uc_lab_staging.src_calculator_calculationparts_housing_calculation) are not published"
)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv("CDI_HOME", str(tmp_path))
    monkeypatch.setenv("CDI_FIRST_STORAGE_DAY", "2023-06-02")
    monkeypatch.setenv("CDI_PUBLISHED_ROOT", (tmp_path / "published").as_uri())
    return open_storage((tmp_path / "published").as_uri())


def run(*arguments: str, collection: str = PARTS.id) -> tuple[int, str]:
    result = CliRunner().invoke(cdi, ["snapshot", *arguments, "--collection", collection])
    return result.exit_code, result.output


def test_only_fridays_and_keyed_collections_have_snapshots(published: Storage) -> None:
    code, output = run("--export-day", "2023-06-08")
    assert (code, "2023-06-08 is a Thursday" in output) == (1, True)
    code, output = run("--export-day", "2023-06-09", collection="data:businessAudit")
    assert (code, "data:businessAudit is append-only" in output) == (1, True)


def test_missing_days_are_named_before_spark_is_started(published: Storage) -> None:
    publish_days(published, FRIDAY, date(2023, 6, 6))
    code, output = run("--export-day", "2023-06-09")
    assert code == 1
    assert "2023-06-07, 2023-06-08" in " ".join(output.split())


def test_a_copied_snapshot_is_a_base_once_it_is_adopted_and_copied_again_it_is_another(published: Storage) -> None:
    day = snapshot_of(PARTS, FRIDAY)
    code, output = run("adopt", "--export-day", str(FRIDAY))
    assert (code, "There are no files of a snapshot" in " ".join(output.split())) == (1, True)
    published.write(f"{snapshot_prefix(day)}id_part=0a/part-0.orc", b"12345")
    fingerprints = []
    for content in (b"12345", b"12345", b"123456"):
        if content != b"12345":
            published.write(f"{snapshot_prefix(day)}id_part=0a/part-0.orc", content)
        result = CliRunner().invoke(
            cdi, ["snapshot", "adopt", "--collection", PARTS.id, "--export-day", str(FRIDAY), "--json"]
        )
        assert json.loads(result.stdout) == {"export_day": "2023-06-02", "files": 1, "stored_bytes": len(content)}
        mark = read_snapshot_mark(published, day)
        assert mark is not None
        fingerprints.append(mark.fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def make(published: Storage, export_day: date) -> None:
    """Make a snapshot, without its tables."""
    step = snapshot_step(PARTS, export_day, published, first_storage_day=FRIDAY, correlation_id="made")
    ScriptedSnapshots(published).launch(None, step)


def make_tables(published: Storage, export_day: date) -> None:
    day = snapshot_of(with_tables(PARTS, {}), export_day)
    step = snapshot_tables_step(day, published, correlation_id="made", tables=None)
    ScriptedSnapshots(published).launch(None, step)


def test_watch_reports_a_snapshot_that_is_not_published_by_its_late_time(published: Storage) -> None:
    def watch(at: str) -> tuple[int, str]:
        with freeze_time(f"2023-06-16T{at}+00:00"):
            result = CliRunner().invoke(cdi, ["watch", "--only", "published", "--collection", PARTS.id])
        return result.exit_code, result.output

    publish_days(published, FRIDAY, date(2023, 6, 15))
    make(published, date(2023, 6, 9))
    assert watch("11:59:59") == (0, "All is well.\n")
    assert watch("12:00:00") == (
        1,
        f"{PARTS.id}: snapshot of 2023-06-16: not published (deadline: 12:00 UTC of 2023-06-16)\n",
    )
    make(published, date(2023, 6, 16))
    assert watch("12:00:00") == (
        1,
        f"{PARTS.id}: snapshot of 2023-06-16: {TABLES} (deadline: 12:00 UTC of 2023-06-16)\n",
    )
    make_tables(published, date(2023, 6, 16))
    assert watch("12:00:00") == (0, "All is well.\n")
