"""Runs in a real Dagster: webserver, daemon, run worker, Spark. What a person starts, ends, or loses."""

import json
import os
import signal
from datetime import date, timedelta
from pathlib import Path

import pytest

from cdi_dagster.core.storage_keys import run_report_key
from cdi_dagster.published.read import read_mark
from cdi_dagster_tests.collections import EQUALITY
from cdi_dagster_tests.definitions.real_dagster import ENDED

pytestmark = [pytest.mark.daemon, pytest.mark.spark, pytest.mark.timeout(1800)]
DAY = date(2023, 3, 26)


def test_a_day_materialised_in_the_ui_is_published_checked_and_completed(dagster):
    dagster.write_day(DAY)
    run_id = dagster.launch(DAY)
    assert dagster.wait(run_id, ENDED) == "SUCCESS"
    assert read_mark(dagster.published, EQUALITY.on(DAY)).published == 200
    assert dagster.row(run_id)["Status"] == "COMPLETED"
    events = dagster.webserver.run(run_id, None)["eventConnection"]["events"]
    checks = [e["evaluation"] for e in events if e["__typename"] == "AssetCheckEvaluationEvent"]
    assert sorted(check["checkName"] for check in checks if check["success"]) == [
        "counts_reconcile",
        "nothing_rejected",
        "offsets_are_whole",
        "published_on_time",
    ]
    said = [e["message"] for e in events if e["__typename"] == "LogMessageEvent"]
    assert any("objects" in text for text in said), said
    assert json.loads(dagster.published.read(run_report_key(EQUALITY.on(DAY), run_id)))["totals"]["read"] == 200


def test_a_day_whose_coalescer_has_not_run_fails_without_a_spark(dagster):
    run_id = dagster.launch(DAY + timedelta(days=20))
    assert dagster.wait(run_id, ENDED) == "FAILURE"
    assert dagster.spark_processes() == {}
    assert dagster.row(run_id)["Failure"].startswith("COALESCER_NOT_STARTED")


@pytest.fixture
def hanging_run(dagster):
    """A run in the middle of its Spark job, whose key service has gone silent."""
    day = DAY + timedelta(days=1)
    dagster.write_day(day)
    dagster.keys.silent = True
    run_id = dagster.launch(day)
    dagster.wait(run_id, ("STARTED",))
    dagster.wait_for_hanging_workers()
    yield run_id, day
    dagster.keys.silent = False


@pytest.mark.kill
def test_terminating_a_run_ends_everything_that_spark_started(dagster, hanging_run):
    run_id, day = hanging_run
    dagster.terminate(run_id)
    assert dagster.wait(run_id, ENDED) == "CANCELED"
    dagster.wait_for_no_spark()
    assert dagster.row(run_id)["Status"] == "FAILED"
    assert read_mark(dagster.published, EQUALITY.on(day)) is None


@pytest.mark.kill
def test_killing_the_run_worker_with_sigkill_ends_everything_that_spark_started(dagster, hanging_run):
    run_id, day = hanging_run
    (guard,) = [pid for pid, command in dagster.spark_processes().items() if "process_guard" in command]
    worker = int(Path(f"/proc/{guard}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    dagster.wait_for_no_spark()
    # Run monitoring notices the lost worker.
    assert dagster.wait(run_id, ENDED) == "FAILURE"
    assert read_mark(dagster.published, EQUALITY.on(day)) is None
