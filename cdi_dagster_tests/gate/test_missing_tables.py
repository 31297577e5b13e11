"""A day whose records are published and whose tables are not: by ticks of sensor and schedule, on a real instance."""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from freezegun import freeze_time

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.core.storage_keys import tables_report_key
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DAY
from cdi_dagster_tests.gate.instigators import (
    RECORDS,
    launched,
    publish_mark,
    run_as,
    schedule_tick,
    sensor_tick,
)

DUE = datetime(2023, 3, 27, 9, 30, tzinfo=UTC)
TEN = datetime(2023, 3, 27, 10, tzinfo=UTC)
TABLES = {f"business_audit/auditlog_{name}" for name in ("raw", "managed", "sec_v", "red_v")}
LOST = CdiError(FailureClass.CLUSTER_LOST, "The cluster ended.")


def _run(day, *assets, at=TEN, **options):
    with freeze_time(at):
        return day.run(*assets, **options)


def _selected(request):
    return {key.to_user_string() for key in request.asset_selection or []}


def _steps(day):
    return [step.name for step in day.spark.launched]


def test_tables_that_fail_are_run_alone_after_the_usual_wait_and_the_day_is_done(open_day):
    day = open_day
    day.spark.failure_of["publish_tables"] = LOST
    (whole,) = sensor_tick(day, TEN).run_requests
    assert _selected(whole) == set()
    with freeze_time(TEN):
        failed = run_as(day, whole)
    assert not failed.success
    told = sensor_tick(day, TEN, name="failed_runs_sensor").skip_message
    assert "CLUSTER_LOST; no alert is sent: TABLES_MISSING: " in told
    assert "next attempt from 10:10 UTC" in sensor_tick(day, TEN + timedelta(minutes=9)).skip_message
    (alone,) = sensor_tick(day, TEN + timedelta(minutes=11)).run_requests
    assert _selected(alone) == TABLES
    assert alone.run_key != whole.run_key
    day.spark.failure_of.clear()
    with freeze_time(TEN + timedelta(minutes=11)):
        result = run_as(day, alone)
    assert result.success
    assert alone.asset_check_keys == []
    assert _steps(day) == ["ingest_daily", "publish_tables", "publish_tables"]
    assert launched(sensor_tick(day, TEN + timedelta(hours=1))) == []
    assert not [alert for alert in day.alerts.sent if alert.kind == "FAILED"]


def test_tables_that_fail_three_times_are_left_to_a_person_and_alerted_once(open_day):
    day = open_day
    day.spark.failure_of["publish_tables"] = LOST
    for attempt in range(3):
        at = TEN + timedelta(minutes=30 * attempt)
        (request,) = sensor_tick(day, at).run_requests
        with freeze_time(at):
            assert not run_as(day, request).success
        sensor_tick(day, at, name="failed_runs_sensor")
    last = TEN + timedelta(hours=1, minutes=50)
    quiet = sensor_tick(day, last)
    assert launched(quiet) == []
    assert "TABLES_MISSING: " in quiet.skip_message
    assert "3 runs, the last" in quiet.skip_message
    (alert,) = (alert for alert in day.alerts.sent if alert.kind == "FAILED")
    assert alert.failure_class == "CLUSTER_LOST"
    assert (
        "Automatically: nothing: TABLES_MISSING: records are published, tables (uc_dw_auditlog.auditlog_raw, "
        in alert.text
    )
    assert _steps(day) == ["ingest_daily"] + ["publish_tables"] * 3
    # A person who materialises the tables reopens them; also where that fails once.
    assert not _run(day, *TABLES, at=last).success
    (request,) = sensor_tick(day, last + timedelta(minutes=11)).run_requests
    assert _selected(request) == TABLES


def test_records_that_a_person_ran_alone_get_their_tables_by_sensor_or_schedule(open_day):
    assert _run(open_day, *RECORDS, at=DUE - timedelta(hours=1)).success
    for tick in (schedule_tick(open_day, DUE), sensor_tick(open_day, TEN)):
        (request,) = tick.run_requests
        assert _selected(request) == TABLES
    assert run_as(open_day, request).success
    assert _steps(open_day) == ["ingest_daily", "publish_tables"]
    assert launched(sensor_tick(open_day, TEN)) == []


def test_a_run_of_tables_that_a_person_requested_holds_its_day(open_day):
    assert _run(open_day, *RECORDS).success
    job = open_day.definitions.resolve_job_def("business_audit_daily")
    open_day.instance.create_run_for_job(
        job,
        tags={"dagster/partition": str(DAY)},
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset({dg.AssetKey(["business_audit", "auditlog_raw"])}),
    )
    data = sensor_tick(open_day, TEN)
    assert launched(data) == []
    assert "is running" in data.skip_message


def test_tables_under_which_dagster_was_stopped_are_run_alone_at_once_however_old_their_day_is(day):
    long_ago = DAY - timedelta(days=60)
    day.put_object("0_9", storage_day=long_ago)
    day.status.state = CoalescerState.NOT_STARTED
    day.status.by_day[long_ago] = CoalescerState.COMPLETE
    day.spark.failure_of["publish_tables"] = dg.DagsterExecutionInterruptedError()
    assert not _run(day, storage_day=long_ago).success
    (request,) = sensor_tick(day, TEN).run_requests
    assert (request.partition_key, _selected(request)) == (str(long_ago), TABLES)


@pytest.mark.parametrize("at", [TEN, TEN + timedelta(hours=8)])
def test_after_an_upgrade_days_of_the_earlier_version_are_done_and_nothing_is_late(day, at):
    for n in range(9):
        storage_day = DAY - timedelta(days=n)
        day.put_object("0_9", storage_day=storage_day)
        publish_mark(day, storage_day)
        key = tables_report_key(AUDIT.on(storage_day), "a-run")
        report = json.loads(day.published.read(key))
        del report["defined"]
        day.published.write(key, json.dumps(report).encode())
    data = sensor_tick(day, at)
    assert launched(data) == []
    assert day.alerts.sent == []
    assert data.skip_message == "Every due day from 2023-03-20 to 2023-03-26 is published."
