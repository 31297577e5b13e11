"""`cdi status` with a real Dagster home and without one: state, last run, next step, link, and the exit code."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from cdi_dagster import names
from cdi_dagster.cli.app import cdi
from cdi_dagster.core.collections import REGISTRY
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.status_rows import StatusRow, data_product_of
from cdi_dagster.ingestion.ingestion_lease import ingestion_lease
from cdi_dagster.resources.status_table import FileStatusTable
from cdi_dagster_tests.clock import clock_at
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DAY, DagsterDay
from cdi_dagster_tests.instance import instance_on_disk

OF_DAY = ("--collection", "data:businessAudit", "--storage-day", str(DAY))
NOON = datetime.combine(DAY + timedelta(days=1), time(12), tzinfo=UTC)


@contextmanager
def coalesced_day(home: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[DagsterDay]:
    """Yield a day of ten records that the real coalescer has marked, on a Dagster home on disk."""
    with instance_on_disk() as instance:
        day = DagsterDay(home, instance, first_storage_day=DAY, **settings)
        monkeypatch.setenv("CDI_HOME", str(home))
        monkeypatch.setenv("CDI_FIRST_STORAGE_DAY", str(DAY))
        day.put_object("0-9", content=gzip.compress(b'{"a":1}\n' * 10))
        assert command("coalesce", *OF_DAY).exit_code == 0
        yield day


def command(*arguments: str) -> Result:
    return CliRunner().invoke(cdi, arguments)


def status(*arguments: str) -> tuple[int, Any]:
    result = command("status", *arguments, "--json")
    return result.exit_code, json.loads(result.stdout)


def test_a_day_is_waited_for_until_records_and_tables_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with coalesced_day(tmp_path, monkeypatch) as day:
        code, before = status(*OF_DAY)
        assert (code, before["state"], before["last_run"]) == (3, "waiting", None)
        assert before["reason"].endswith("nothing launches it by itself: materialise it")

        assert day.run("corporate_storage/business_audit", "business_audit/daily_records").success
        code, records_only = status(*OF_DAY)
        assert (code, records_only["state"], records_only["waits_for"]) == (3, "waiting", "TABLES_MISSING")

        whole = day.run()
        assert whole.success
        code, after = status(*OF_DAY)
        assert (code, after["state"], after["records"], after["rejects"]) == (0, "published", 10, 0)
        assert set(after["tables"]) == set(AUDIT.table_names)
        assert after["last_run"]["url"] == f"http://127.0.0.1:3000/runs/{whole.run_id}"
        assert after["notes"] == []
        shown = command("status", *OF_DAY)
        assert (shown.exit_code, "10, from the objects that are there now" in shown.stdout) == (0, True)
        assert command("status", *OF_DAY, "--watch").exit_code == 0  # returns: it is published


def test_a_failed_day_has_class_next_step_owner_and_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with coalesced_day(tmp_path, monkeypatch) as day:
        day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "The key service refused.")
        failed = day.run()
        code, value = status(*OF_DAY)
        assert (code, value["state"]) == (1, "failed")
        failure = value["last_run"]["failure"]
        assert (failure["failure_class"], failure["cause"]) == ("DKS_FORBIDDEN", "The key service refused.")
        assert (failure["owner"], failure["next_step"][:5]) == ("CDI on-call engineer", "Renew")
        shown = " ".join(command("status", *OF_DAY).stdout.split())
        assert f"/runs/{failed.run_id}" in shown
        assert "docs/runbook.md#dks_forbidden" in shown


def test_the_next_step_is_that_of_the_gate_where_the_day_waits_for_it_whatever_a_run_failed_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDI_AUTOMATION", "true")
    with coalesced_day(tmp_path, monkeypatch) as day:
        day.spark.failure = CdiError(FailureClass.CLUSTER_LOST, "The cluster ended.")
        day.run(tags={names.LAUNCHED_BY_TAG: "sensor"})
        day.corporate.delete([stored.key for stored in day.corporate.list(AUDIT.on(DAY).corporate_prefix)])
        with clock_at(NOON):
            shown = " ".join(command("status", *OF_DAY).stdout.split())
        assert "waiting: coalescer UNKNOWN" in shown
        assert "failed with CLUSTER_LOST: The cluster ended." in shown
        assert "next step Restore the objects" in shown
        assert "docs/runbook.md#coalescer_unknown" in shown


def test_a_published_day_needs_nothing_of_what_a_later_run_failed_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with coalesced_day(tmp_path, monkeypatch) as day:
        assert day.run().success
        day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "The key service refused.")
        day.run()
        shown = command("status", *OF_DAY)
        assert (shown.exit_code, "failed with" in shown.stdout, "next step" in shown.stdout) == (0, True, False)


def test_a_failure_that_is_retried_by_itself_is_not_yet_a_failed_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDI_AUTOMATION", "true")
    with coalesced_day(tmp_path, monkeypatch) as day:
        day.spark.failure = CdiError(FailureClass.CLUSTER_LOST, "The cluster ended.")
        day.run(tags={names.LAUNCHED_BY_TAG: "sensor"})
        with clock_at(NOON):
            code, value = status(*OF_DAY)
        assert (code, value["state"]) == (3, "waiting")
        assert "failed with CLUSTER_LOST" in value["reason"]
        code, value = status(*OF_DAY)
        assert (code, value["state"]) == (1, "failed")  # years later it is not in the look-back


def test_the_run_at_work_is_named_whether_dagster_or_a_terminal_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with coalesced_day(tmp_path, monkeypatch) as day:
        with ingestion_lease(day.published, AUDIT.on(DAY), holder="by-hand"):
            code, value = status(*OF_DAY)
        assert (code, value["state"], value["run_at_work"]) == (3, "running", "by-hand")
        run = day.instance.create_run_for_job(
            day.definitions.resolve_job_def("business_audit_daily"),
            status=dg.DagsterRunStatus.STARTED,
            tags={names.PARTITION_TAG: str(DAY)},
        )
        code, value = status(*OF_DAY)
        assert (code, value["state"], value["run_at_work"]) == (3, "running", run.run_id)


def test_without_a_dagster_home_the_last_run_is_the_one_that_left_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with coalesced_day(tmp_path, monkeypatch) as day:
        run = day.run()
        assert run.success
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "nowhere"))
        code, value = status(*OF_DAY)
        assert (code, value["state"], value["last_run"]["run_id"]) == (0, "published", run.run_id)
        assert value["last_run"]["url"] is None
        assert value["notes"][0].startswith(f"there is no Dagster home at {tmp_path / 'nowhere'}")
        (tmp_path / "nowhere").mkdir()
        (tmp_path / "nowhere" / "dagster.yaml").touch()
        _, value = status(*OF_DAY)
        assert value["notes"][0].startswith(f"Dagster has not started at {tmp_path / 'nowhere'} yet")


def test_records_of_dagster_that_cannot_be_read_are_noted_and_storage_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with coalesced_day(tmp_path, monkeypatch) as day:
        run = day.run()
        damaged = tmp_path / "damaged"
        (damaged / "history").mkdir(parents=True)
        (damaged / "history" / "runs.db").write_bytes(b"this is no database" * 100)
        monkeypatch.setenv("DAGSTER_HOME", str(damaged))
        code, value = status(*OF_DAY)
        assert (code, value["state"], value["last_run"]["run_id"]) == (0, "published", run.run_id)
        assert value["notes"] == [f"Dagster's records in {damaged} cannot be read (DatabaseError)"]


def test_the_table_has_a_line_for_each_day_and_the_worst_of_them_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with coalesced_day(tmp_path, monkeypatch) as day, clock_at(NOON + timedelta(days=1)):
        run = day.run()
        assert run.success
        costs = {"attempts": [{"estimated_cost_usd": 0.5}], "table_attempts": [{"estimated_cost_usd": 0.25}]}
        FileStatusTable(day.settings.status_path).put(
            StatusRow(
                correlation_id=run.run_id,
                data_product=data_product_of(AUDIT),
                status="COMPLETED",
                export_day=AUDIT.on(DAY).export_day,
                current_step="publish_tables",
                detail=costs,
            )
        )
        audit = ("--collection", "data:businessAudit", "--days", "3")
        code, value = status(*audit)
        days = [(row["storage_day"], row["state"], row["records"]) for row in value["days"]]
        assert days == [(str(DAY + timedelta(days=1)), "waiting", None), (str(DAY), "published", 10)]
        assert code == 3
        shown = " ".join(command("status", *audit).stdout.split())
        assert "waiting: COALESCER_NOT_STARTED" in shown
        assert f"data:businessAudit, storage day {DAY + timedelta(days=1)}: coalescer NOT_STARTED: " in shown
        assert f"data:businessAudit {DAY} published 10 0" in shown
        assert "0.75 USD" in shown
        assert {row["collection"] for row in status()[1]["days"]} == {each.id for each in REGISTRY}


@pytest.mark.parametrize("wrong", [("--storage-day", "2023-03-26"), ("--watch", "--json")])
def test_what_is_missing_is_named(wrong: tuple[str, ...]) -> None:
    assert command("status", *wrong).exit_code == 2
