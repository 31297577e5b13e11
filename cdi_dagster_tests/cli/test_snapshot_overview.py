"""Snapshots in `cdi status` and `cdi show`, with a real Dagster home and without one; and what both refuse."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from freezegun import freeze_time

from cdi_dagster.cli.app import cdi
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import SUCCESS_MARK, snapshot_prefix
from cdi_dagster.resources.status_table import FileStatusTable
from cdi_dagster.table_definitions import with_tables
from cdi_dagster_tests.dagster_day import DagsterDay
from cdi_dagster_tests.instance import instance_on_disk
from cdi_dagster_tests.scripted_snapshot import PARTS, ScriptedSnapshots, publish_days

FIRST_DAY, THURSDAY, FRIDAY, NEXT = date(2023, 6, 2), date(2023, 6, 8), date(2023, 6, 9), date(2023, 6, 16)
OF_PARTS = ("--collection", PARTS.id)
TABLES = with_tables(PARTS, {}).snapshot_table_names


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterDay]:
    monkeypatch.setenv("CDI_HOME", str(tmp_path))
    monkeypatch.setenv("CDI_FIRST_STORAGE_DAY", str(FIRST_DAY))
    with instance_on_disk() as instance, freeze_time("2023-06-16T11:00:00+00:00"):
        found = DagsterDay(tmp_path, instance, first_storage_day=FIRST_DAY)
        found.spark = ScriptedSnapshots(found.published)
        found.use(step_launcher=found.spark, status_table=FileStatusTable(found.settings.status_path))
        yield found


def run(day: DagsterDay, export_day: date, assets: tuple[str, ...] = ()) -> dg.ExecuteInProcessResult:
    return day.definitions.resolve_job_def("calculation_parts_snapshot").execute_in_process(
        partition_key=str(export_day),
        instance=day.instance,
        raise_on_error=False,
        asset_selection=[dg.AssetKey.from_user_string(name) for name in assets] or None,
    )


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cdi, arguments)


def status(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code, and the snapshots by their Friday."""
    result = command("status", *OF_PARTS, "--json", *arguments)
    return result.exit_code, {each["export_day"]: each for each in json.loads(result.stdout)["snapshots"]}


def one(export_day: date) -> tuple[int, dict[str, Any]]:
    result = command("status", *OF_PARTS, "--export-day", str(export_day), "--json")
    return result.exit_code, json.loads(result.stdout)


def test_a_damaged_mark_is_a_failure_with_the_command_that_declares_a_copy_whole(day: DagsterDay) -> None:
    publish_days(day.published, FIRST_DAY, THURSDAY)
    assert run(day, FRIDAY).success
    day.published.write(f"{snapshot_prefix(PARTS.on(THURSDAY))}{SUCCESS_MARK}", b'{"a": 1}')
    code, seen = one(FRIDAY)
    assert (code, seen["state"]) == (1, "failed")
    shown = command("show", *OF_PARTS, "--export-day", str(FRIDAY))
    assert shown.exit_code == 1
    for text in (seen["reason"], " ".join(shown.stderr.split())):
        assert "is no mark of a snapshot" in text
        assert f"cdi snapshot adopt --collection {PARTS.id} --export-day {FRIDAY}" in text


def test_status_shows_the_snapshots_of_its_days_with_what_they_wait_for_rows_and_stale_ones(day: DagsterDay) -> None:
    publish_days(day.published, FIRST_DAY, date(2023, 6, 14))
    assert run(day, FRIDAY).success
    code, seen = status()
    assert (code, list(seen)) == (3, ["2023-06-16", "2023-06-09"])
    assert (seen["2023-06-16"]["state"], seen["2023-06-16"]["missing_days"]) == ("waiting", ["2023-06-15"])
    assert (seen["2023-06-09"]["state"], seen["2023-06-09"]["rows"]) == ("published", {"DELETE": 2, "INSERT": 3})
    assert (one(FRIDAY)[0], one(NEXT)[0]) == (0, 3)

    publish_days(day.published, date(2023, 6, 15), date(2023, 6, 15))
    assert run(day, NEXT, ("calculation_parts/snapshot",)).success
    code, seen = status()
    assert (code, seen["2023-06-16"]["state"], len(seen["2023-06-16"]["missing_tables"])) == (3, "waiting", 3)
    assert run(day, NEXT).success
    assert (status()[0], one(NEXT)[0]) == (0, 0)
    assert list(status("--days", "7")[1]) == ["2023-06-16"]

    publish_days(day.published, FIRST_DAY, FIRST_DAY, fingerprint="late")
    code, seen = status()
    assert (code, one(NEXT)[0], [each["state"] for each in seen.values()]) == (3, 3, ["stale", "stale"])
    shown = " ".join(command("status", *OF_PARTS).stdout.split())
    assert f"{PARTS.id} 2023-06-16 stale 3 2" in shown
    assert f"{PARTS.id}, snapshot of 2023-06-16: stale: rows of its days, or its base, were published again" in shown


def test_a_snapshot_that_is_left_to_a_person_has_class_next_step_and_link_and_exits_1(day: DagsterDay) -> None:
    publish_days(day.published, FIRST_DAY, date(2023, 6, 15))
    day.spark.failure = CdiError(FailureClass.JOB_FAILED, "The step failed.", next_step="Read its log.")
    failed = run(day, FRIDAY)
    code, seen = status()
    assert (code, seen["2023-06-09"]["state"], seen["2023-06-16"]["state"]) == (1, "failed", "waiting")
    assert (one(FRIDAY)[0], one(FRIDAY)[1]["runs"][0]["failure"]["failure_class"]) == (1, "JOB_FAILED")
    shown = " ".join(command("status", *OF_PARTS, "--export-day", str(FRIDAY)).stdout.split())
    assert "snapshot of Friday 2023-06-09" in shown
    assert "failed with JOB_FAILED: The step failed. next step Read its log. owner" in shown
    assert f"/runs/{failed.run_id}" in shown
    refused = command("show", *OF_PARTS, "--export-day", str(FRIDAY))
    assert refused.exit_code == 1
    assert f"cdi status {' '.join(OF_PARTS)} --export-day 2023-06-09" in " ".join(refused.stderr.split())


def test_an_older_friday_that_the_sensor_no_longer_makes_is_not_waited_for(
    day: DagsterDay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDI_AUTOMATION", "true")
    publish_days(day.published, FIRST_DAY, date(2023, 6, 15))
    day.spark.failure = CdiError(FailureClass.CLUSTER_LOST, "The cluster ended.")
    run(day, FRIDAY), run(day, NEXT)
    seen = status()[1]
    assert {export_day: each["state"] for export_day, each in seen.items()} == {
        "2023-06-16": "waiting",
        "2023-06-09": "failed",
    }
    nobody = "; nothing launches it by itself: materialise it, or cdi relaunch"
    assert [each["reason"].endswith(nobody) for each in seen.values()] == [False, True]


def test_show_has_the_mark_of_a_snapshot_its_tables_and_every_run(day: DagsterDay) -> None:
    publish_days(day.published, FIRST_DAY, date(2023, 6, 15))
    day.spark.failure = CdiError(FailureClass.CLUSTER_LOST, "The cluster ended.")
    failed = run(day, FRIDAY)
    day.spark.failure = None
    made, after = run(day, FRIDAY), run(day, NEXT)
    assert after.success
    text = command("show", *OF_PARTS, "--export-day", str(FRIDAY)).stdout
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "state published" in lines
    assert "base none: all days since the first" in lines
    assert "days 7: 2023-06-02 to 2023-06-08" in lines
    assert "rows in 7 (DELETE 2, INSERT 5)" in lines
    assert "rows 5 (DELETE 2, INSERT 3)" in lines
    assert "tables " + ", ".join(f"{name} (5 rows)" for name in TABLES) in lines
    assert lines[-2].startswith(f"runs {made.run_id}, succeeded at 2023-06-16 11:00 UTC")
    assert lines[-1].startswith(f"{failed.run_id}, failed at 2023-06-16 11:00 UTC")
    assert lines[-1].endswith(f", CLUSTER_LOST, http://127.0.0.1:3000/runs/{failed.run_id}")

    value = json.loads(command("show", *OF_PARTS, "--export-day", str(NEXT), "--json").stdout)
    assert value["mark"]["base"]["export_day"] == "2023-06-09"
    assert list(value["mark"]["days"]) == [str(date(2023, 6, number)) for number in range(9, 16)]
    assert [each["run_id"] for each in value["runs"]] == [after.run_id]


def test_the_run_of_a_snapshot_is_not_taken_for_one_of_its_last_day(day: DagsterDay) -> None:
    publish_days(day.published, FIRST_DAY, THURSDAY)
    day.published.write(
        f"corporate_data_ingestion/_control/calculator/calculationParts/{FRIDAY}/runs/rows/ingest_report.json", b"{}"
    )
    day.spark.failure = CdiError(FailureClass.JOB_FAILED, "The step failed.")
    run(day, FRIDAY)
    value = json.loads(command("status", *OF_PARTS, "--storage-day", str(THURSDAY), "--json").stdout)
    assert (value["last_run"]["run_id"], value["last_run"]["failure"]) == ("rows", None)


def test_without_a_dagster_home_it_is_noted_that_failed_runs_are_not_known(
    day: DagsterDay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_days(day.published, FIRST_DAY, date(2023, 6, 15))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "nowhere"))
    code, value = one(FRIDAY)
    assert (code, value["state"], value["runs"]) == (3, "waiting", [])
    assert value["notes"][0].endswith("which runs failed is not known")


AUDIT = ("--collection", "data:businessAudit")
BY_DAY = "a day is named by --storage-day 2023-06-08"


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (("status", *AUDIT, "--export-day", "2023-06-09"), f"is append-only and has no snapshots: {BY_DAY}"),
        (("show", *AUDIT, "--export-day", "2023-06-09"), f"is append-only and has no snapshots: {BY_DAY}"),
        (
            ("show", *OF_PARTS, "--export-day", "2023-06-08"),
            "2023-06-08 is a Thursday, and snapshots are of Fridays: a day is named by --storage-day 2023-06-07",
        ),
        (("status", "--export-day", "2023-06-09"), "Missing option '--collection'"),
        (("status", *OF_PARTS, "--export-day", "2023-06-09", "--storage-day", "2023-06-08"), "not both"),
        (("show", *OF_PARTS), "Name a day by --storage-day, or the snapshot of a Friday by --export-day"),
        (("show", *OF_PARTS, "--export-day", "2023-06-09", "--trace", "0:1"), "are of a day: name it by --storage-day"),
        (("relaunch", *OF_PARTS, "--export-day", "2023-06-08"), "2023-06-08 is a Thursday"),
        (("relaunch", *OF_PARTS, "--export-day", "2023-06-09", "--to", "2023-06-12"), "2023-06-12 is a Monday"),
        (("relaunch", *OF_PARTS, "--export-day", "2023-06-09", "--allow-empty"), "takes no option of input"),
        (("relaunch", *OF_PARTS, "--storage-day", "2023-06-08", "--tables-only"), "name a Friday by --export-day"),
    ],
)
def test_what_is_no_day_and_no_snapshot_is_refused_with_what_to_write(arguments: tuple[str, ...], fix: str) -> None:
    result = command(*arguments)
    assert (result.exit_code, fix in " ".join(result.stderr.split())) == (2, True), result.stderr
