"""Dagster is stopped under a run, and started again: a deployment, with real processes."""

from datetime import UTC, datetime, timedelta

import pytest

from cdi_dagster_tests.clock import clock_at
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.gate.real_dagster import RECORDS, gate_dagster

pytestmark = [pytest.mark.daemon, pytest.mark.kill, pytest.mark.timeout(1800)]
DATA_PRODUCT = "CDI-data:businessAudit"
SENSORS = ("business_audit_coalescer_completion_sensor", "failed_runs_sensor")


@pytest.fixture
def dagster(tmp_path):
    mid_morning = datetime.now(UTC).replace(hour=10, minute=0)
    with clock_at(mid_morning), gate_dagster(tmp_path, locations=["rapid"]) as running:
        yield running


def test_a_run_under_which_dagster_is_stopped_is_run_again_when_it_is_back_and_nobody_is_alerted(dagster):
    rapid, yesterday = dagster.rapid, datetime.now(UTC).date() - timedelta(days=1)
    rapid.coalesced(AUDIT, yesterday)
    for sensor in SENSORS:
        rapid.start("sensor", sensor)
    with rapid.holding(yesterday):
        (interrupted,) = dagster.wait(lambda: rapid.at_work(yesterday), "the ingestion is at work")
        dagster.stop()
    stopped = dagster.instance.get_run_by_id(interrupted)
    assert (stopped.status.value, stopped.tags["cdi/failure_class"]) == ("FAILURE", "INTERRUPTED")
    row = rapid.rows.get(interrupted, DATA_PRODUCT)
    assert (row.status, row.failure) == ("FAILED", "INTERRUPTED: Dagster was stopped during the run.")
    assert not rapid.is_published(AUDIT, yesterday)

    dagster.start()
    # Were it not for the class, the day would wait for ten minutes: longer than a test waits.
    dagster.wait(lambda: rapid.is_published(AUDIT, yesterday), "the day is published")
    again = rapid.at_work(yesterday)[-1]
    assert dagster.wait_run(again).dagster_run.status.value == "SUCCESS"
    dagster.wait(lambda: "cdi/told" in _tags(dagster, interrupted), "the failed runs sensor has dealt with the run")
    assert _tags(dagster, interrupted)["cdi/told"].startswith("INTERRUPTED; no alert is sent: ")
    assert _tags(dagster, again)["cdi/launched_by"] == "sensor"
    ticks = len(dagster.ticks(SENSORS[0]))
    dagster.wait(lambda: len(dagster.ticks(SENSORS[0])) > ticks + 1, "the sensor looks again")
    assert rapid.at_work(yesterday) == [interrupted, again]
    assert rapid.is_published(AUDIT, yesterday) == RECORDS
    assert [record.dagster_run.run_id for record in dagster.runs(yesterday)] == [interrupted, again]
    assert rapid.rows.get(again, DATA_PRODUCT).status == "COMPLETED"
    assert dagster.heard.alerts == []


def test_a_run_that_a_person_terminates_is_not_interrupted_and_its_day_is_left_to_that_person(dagster):
    rapid, yesterday = dagster.rapid, datetime.now(UTC).date() - timedelta(days=1)
    rapid.coalesced(AUDIT, yesterday)
    for sensor in SENSORS:
        rapid.start("sensor", sensor)
    with rapid.holding(yesterday):
        (run_id,) = dagster.wait(lambda: rapid.at_work(yesterday), "the ingestion is at work")
        dagster.terminate(run_id)
        assert dagster.wait_run(run_id).dagster_run.status.value == "CANCELED"
    dagster.wait(lambda: "cdi/told" in _tags(dagster, run_id), "the failed runs sensor has dealt with the run")
    assert rapid.rows.get(run_id, DATA_PRODUCT).failure == "The run was terminated."
    assert dagster.failure_class(run_id) is None
    ticks = len(dagster.ticks(SENSORS[0]))
    dagster.wait(lambda: len(dagster.ticks(SENSORS[0])) > ticks + 1, "the sensor looks again")
    assert rapid.at_work(yesterday) == [run_id]


def _tags(dagster, run_id):
    return dagster.instance.get_run_by_id(run_id).tags
