"""A run that fails: one alert is sent, with class, cause, owner, next step and link; its row does not stay open."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.storage.tags import TAGS_TO_MAYBE_OMIT_ON_RETRY
from dagster._utils.error import SerializableErrorInfo
from freezegun import freeze_time

from cdi_dagster import names
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.core.storage_keys import ingestion_lease_key
from cdi_dagster.resources.status_table import FileStatusTable
from cdi_dagster.run_records import past_runs
from cdi_dagster.storage import TransientStorageError
from cdi_dagster_tests.collections import AUDIT, EQUALITY
from cdi_dagster_tests.dagster_day import DAY
from cdi_dagster_tests.gate.instigators import RECORDS, launched, publish_mark, run_as, sensor_tick
from cdi_dagster_tests.killed_worker import KillsItsWorker

INPUT, DAILY_RECORDS = RECORDS
TABLES = [key.to_user_string() for key in names.table_keys(AUDIT)]
NOW = datetime(2023, 3, 27, 10, tzinfo=UTC)
DATA_PRODUCT = "CDI-data:businessAudit"


def _run(day, *assets, **options):
    with freeze_time(NOW):
        return day.run(*(assets or RECORDS), **options)


def _tick(day, at=NOW):
    return sensor_tick(day, at, name="failed_runs_sensor").skip_message


def _alerted(day):
    return [alert.failure_class for alert in day.alerts.sent if alert.kind == "FAILED"]


def test_rejected_records_are_alerted_at_once_with_all_that_a_person_needs_and_once(open_day):
    open_day.spark.failure = CdiError(FailureClass.RECORDS_REJECTED, "24 of 10,000 records were rejected.")
    run_id = _run(open_day).run_id
    assert f"Run {run_id}: RECORDS_REJECTED; alert sent" in _tick(open_day)
    (alert,) = open_day.alerts.sent
    assert alert.to_json() == {
        "kind": "FAILED",
        "title": "RECORDS_REJECTED: data:businessAudit of storage day 2023-03-26 (export day 2023-03-27) failed",
        "text": f"24 of 10,000 records were rejected. Automatically: nothing: run {run_id} failed with "
        "RECORDS_REJECTED, which a re-run does not fix: its page has the next step.",
        "collection": "data:businessAudit",
        "storage_day": "2023-03-26",
        "export_day": "2023-03-27",
        "storage_days": ["2023-03-26"],
        "export_days": ["2023-03-27"],
        "runbook": "https://runbook#records_rejected",
        "key": f"failed|data:businessAudit|RECORDS_REJECTED|a person ({run_id})|left",
        "notification_type": "Error",
        "severity": "Critical",
        "failure_class": "RECORDS_REJECTED",
        "owner": "CDI on-call engineer",
        "next_step": "Read the rejects by reason; fix the cause, or run again with a higher max_rejected.",
        "run_url": f"http://127.0.0.1:3000/runs/{run_id}",
    }
    for minutes in range(3):
        assert _tick(open_day, NOW + timedelta(minutes=minutes)) == "There is no failed run that is not reported yet."
    assert len(open_day.alerts.sent) == 1


def test_a_failed_job_is_alerted_with_its_last_log_lines(open_day):
    open_day.spark.failure = CdiError(FailureClass.JOB_FAILED, "It broke.", detail={"last_log_lines": "ERROR a\nb"})
    _run(open_day)
    _tick(open_day)
    assert "ERROR a\nb" in open_day.alerts.sent[0].last_log_lines


def test_an_alert_that_cannot_be_sent_is_sent_at_a_later_tick(open_day):
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "403")
    _run(open_day)
    open_day.alerts.refuse = True
    assert "checked again at the next tick" in _tick(open_day)
    open_day.alerts.refuse = False
    _tick(open_day)
    _tick(open_day)
    assert _alerted(open_day) == ["DKS_FORBIDDEN"]


def test_storage_that_does_not_answer_is_retried_without_an_alert(open_day):
    open_day.spark.failure = TransientStorageError("s3://b: the connection was cut 6 times")
    _run(open_day)
    assert "STORAGE_UNAVAILABLE; no alert is sent: " in _tick(open_day)
    assert launched(sensor_tick(open_day, NOW + timedelta(minutes=9))) == []
    (request,) = sensor_tick(open_day, NOW + timedelta(minutes=11)).run_requests
    open_day.spark.failure = None
    assert _run(open_day, tags=request.tags).success
    _tick(open_day)
    assert _alerted(open_day) == []


def test_used_up_retries_send_an_alert_and_a_closed_gate_does_not(open_day):
    open_day.spark.failure = CdiError(FailureClass.DKS_UNAVAILABLE, "503")
    for attempt in range(3):
        (request,) = sensor_tick(open_day, NOW + timedelta(hours=attempt)).run_requests
        with freeze_time(NOW + timedelta(hours=attempt)):
            open_day.run(*RECORDS, tags=request.tags)
        _tick(open_day, NOW + timedelta(hours=attempt))
        assert len(_alerted(open_day)) == (1 if attempt == 2 else 0)
    open_day.status.by_day[DAY] = CoalescerState.RUNNING
    _run(open_day)
    assert "no alert is sent: its day is reported if it is late" in _tick(open_day)
    assert _alerted(open_day) == ["DKS_UNAVAILABLE"]


def test_of_an_unforeseen_error_the_alert_has_the_type_and_never_the_text(open_day):
    open_day.spark.failure = ZeroDivisionError("payload")
    result = _run(open_day)
    assert open_day.instance.get_run_by_id(result.run_id).tags["cdi/failure_class"] == "JOB_FAILED"
    _tick(open_day)
    (alert,) = open_day.alerts.sent
    assert "failed with ZeroDivisionError" in alert.text
    assert "payload" not in json.dumps(alert.to_json())
    assert launched(sensor_tick(open_day, NOW + timedelta(hours=2))) == []


def test_counts_that_do_not_reconcile_after_publication_are_alerted_by_class_too(open_day, monkeypatch):
    monkeypatch.setattr("cdi_dagster.checks.daily_records.count_mismatches", lambda *_: ["10 read, 9 published"])
    assert not _run(open_day).success
    _tick(open_day)
    (alert,) = open_day.alerts.sent
    assert (alert.failure_class, alert.text.split(".")[0]) == (
        "COUNTS_DO_NOT_RECONCILE",
        "10 read, 9 published",
    )


@pytest.fixture
def killed(open_day, tmp_path):
    """A run of the records whose worker was killed, as Dagster's run monitoring leaves it, and the status table."""
    return open_day, run_that_is_killed(open_day, tmp_path, None, *RECORDS)


def run_that_is_killed(day, folder, after, *assets):
    day.rows = FileStatusTable(folder / "rows")
    good, day.spark = day.spark, KillsItsWorker(day.spark, after)
    day.use()
    child = os.fork()
    if child == 0:
        at = freeze_time(NOW - timedelta(minutes=1))
        with at, dg.DagsterInstance.from_ref(day.instance.get_ref()) as day.instance:
            day.run(*assets)
    os.waitpid(child, 0)
    (run,) = day.instance.get_runs()
    day.spark = good
    day.use()
    return run


@pytest.mark.kill
def test_the_row_of_a_killed_worker_is_closed_and_the_day_is_run_again_by_itself(killed):
    day, run = killed
    assert day.rows.get(run.run_id, DATA_PRODUCT).status == "IN_PROGRESS"
    assert _tick(day) == "There is no failed run that is not reported yet."
    with freeze_time(NOW):
        day.instance.report_run_failed(run, "Detected run worker status UNHEALTHY")
    assert "WORKER_LOST; no alert is sent" in _tick(day)
    row = day.rows.get(run.run_id, DATA_PRODUCT)
    assert (row.status, row.current_step) == ("FAILED", "ingest_daily")
    assert row.failure == "WORKER_LOST: Dagster reports: Detected run worker status UNHEALTHY"
    assert row.detail["objects"] == 1
    (request,) = sensor_tick(day, NOW + timedelta(minutes=11)).run_requests
    day.published.delete([ingestion_lease_key(AUDIT.on(DAY))])  # eleven minutes later it has ended by itself
    with freeze_time(NOW):
        result = run_as(day, request)
    assert result.success
    _tick(day)
    assert day.rows.get(result.run_id, DATA_PRODUCT).status == "COMPLETED"
    assert _alerted(day) == []


@pytest.mark.kill
def test_a_day_that_the_cluster_of_a_lost_run_published_is_run_again_until_dagster_has_it(killed):
    day, run = killed
    with freeze_time(NOW):
        day.instance.report_run_failed(run, "Detected run worker status UNHEALTHY")
    _tick(day)
    publish_mark(day, DAY, run_id=run.run_id, at=NOW)
    assert not sensor_tick(day, NOW + timedelta(minutes=5)).run_requests
    (request,) = sensor_tick(day, NOW + timedelta(minutes=11)).run_requests
    because = f"again: run {run.run_id} published it, and failed with WORKER_LOST before that was recorded"
    assert request.tags["cdi/launched_because"] == because
    day.published.delete([ingestion_lease_key(AUDIT.on(DAY))])  # eleven minutes later it has ended by itself
    with freeze_time(NOW + timedelta(minutes=12)):
        result = run_as(day, request)
    assert result.success
    assert day.rows.get(result.run_id, DATA_PRODUCT).status == "COMPLETED"
    assert not sensor_tick(day, NOW + timedelta(minutes=22)).run_requests


@pytest.mark.kill
def test_tables_that_a_lost_run_published_are_published_again_until_dagster_has_them(open_day, tmp_path):
    day, whole = open_day, (*RECORDS, *TABLES)
    run = run_that_is_killed(day, tmp_path, "publish_tables", *whole)
    with freeze_time(NOW):
        day.instance.report_run_failed(run, "Detected run worker status UNHEALTHY")
    assert "no alert is sent: published: run" in _tick(day)
    assert day.rows.get(run.run_id, DATA_PRODUCT).status == "FAILED"
    assert not sensor_tick(day, NOW + timedelta(minutes=5)).run_requests
    (request,) = sensor_tick(day, NOW + timedelta(minutes=11)).run_requests
    because = f"again: run {run.run_id} published it, and failed with WORKER_LOST before that was recorded"
    assert request.tags["cdi/launched_because"] == because
    assert sorted(key.to_user_string() for key in request.asset_selection) == sorted(TABLES)
    day.published.delete([ingestion_lease_key(AUDIT.on(DAY))])  # eleven minutes later it has ended by itself
    with freeze_time(NOW + timedelta(minutes=12)):
        result = run_as(day, request)
    assert result.success
    assert day.rows.get(result.run_id, DATA_PRODUCT).status == "COMPLETED"
    assert not sensor_tick(day, NOW + timedelta(minutes=22)).run_requests


@pytest.mark.kill
def test_a_lost_run_that_dagster_itself_runs_again_sends_no_alert_and_its_row_is_closed(killed):
    day, run = killed
    day.instance.add_run_tags(run.run_id, {"dagster/max_retries": "1"})
    with freeze_time(NOW):
        day.instance.report_run_failed(day.instance.get_run_by_id(run.run_id))
    day.instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})
    assert "Dagster retries it" in _tick(day)
    assert day.rows.get(run.run_id, DATA_PRODUCT).status == "FAILED"
    assert _alerted(day) == []


@pytest.mark.kill
def test_a_row_that_cannot_be_closed_delays_no_alert_and_is_closed_later(killed, monkeypatch):
    day, run = killed
    day.status.by_day.clear()
    later = NOW + timedelta(days=30)  # so long after, automation does not look at the day
    with freeze_time(later):
        day.instance.report_run_failed(run)

    def refuse(*_):
        raise CdiError(FailureClass.JOB_FAILED, "DynamoDB does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(day.rows, "put", refuse)
        _tick(day, later)
        assert _alerted(day) == ["WORKER_LOST"]
        # One that is still to be closed stands in nobody's way.
        patched.setattr("cdi_dagster.sensors.failed_runs.MOST_PER_TICK", 1)
        tags = {"dagster/partition": str(DAY)}
        other = dg.DagsterRun(job_name="business_audit_daily", tags=tags, status=dg.DagsterRunStatus.FAILURE)
        with freeze_time(later):
            day.instance.add_run(other)
        assert f"Run {other.run_id}: WORKER_LOST; alert sent" in _tick(day, later)
    assert "its status row is still to be closed" in _tick(day, later)
    assert day.rows.get(run.run_id, DATA_PRODUCT).status == "FAILED"
    assert "There is no failed run" in _tick(day, later)
    assert len(_alerted(day)) == 2


@pytest.mark.kill
def test_a_run_that_dagster_ended_between_its_steps_was_interrupted(killed):
    day, run = killed
    error = SerializableErrorInfo("", [], "DagsterExecutionInterruptedError")
    data = JobFailureData(error, RunFailureReason.UNEXPECTED_TERMINATION)
    with freeze_time(NOW):
        day.instance.report_run_failed(run, "Execution was interrupted unexpectedly.", data)
    assert "INTERRUPTED; no alert is sent: the day is run again now" in _tick(day)
    row = day.rows.get(run.run_id, DATA_PRODUCT)
    assert row.failure == "INTERRUPTED: Dagster was stopped during the run."


@pytest.mark.kill
def test_a_run_that_a_person_terminated_sends_no_alert_and_its_row_is_closed(killed):
    day, run = killed
    with freeze_time(NOW):
        day.instance.report_run_canceled(run)
    assert "it was terminated" in _tick(day)
    assert day.rows.get(run.run_id, DATA_PRODUCT).failure == "The run was terminated."
    assert _alerted(day) == []


def test_of_a_run_of_two_collections_the_one_that_failed_is_named(open_day):
    open_day.put_object("0_9", of=EQUALITY)
    open_day.put_object("5_12", of=EQUALITY)  # claims offsets that the other has too
    with freeze_time(NOW):
        open_day.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            partition_key=str(DAY),
            instance=open_day.instance,
            raise_on_error=False,
            asset_selection=[dg.AssetKey(["corporate_storage", each.asset_name]) for each in (AUDIT, EQUALITY)],
        )
    _tick(open_day)
    (alert,) = open_day.alerts.sent
    assert (alert.collection_id, alert.failure_class) == ("data:equality", "INPUT_INVALID")


def _of_parent(day, run_id):
    """The tags of a re-execution, as Dagster's webserver and its own retries copy them."""
    parent = day.instance.get_run_by_id(run_id)
    copied = {name: value for name, value in parent.tags.items() if name not in TAGS_TO_MAYBE_OMIT_ON_RETRY}
    return {**copied, "dagster/parent_run_id": run_id, "dagster/root_run_id": parent.root_run_id or run_id}


def test_a_re_execution_that_fails_sends_its_own_alert(open_day):
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "403")
    first = _run(open_day, tags={"cdi/launched_by": "sensor"})
    _tick(open_day)
    open_day.spark.failure = CdiError(FailureClass.RECORDS_REJECTED, "24 of 10,000 records were rejected.")
    again = _run(open_day, tags=_of_parent(open_day, first.run_id))
    assert f"Run {again.run_id}: RECORDS_REJECTED; alert sent." in _tick(open_day)
    assert "There is no failed run" in _tick(open_day)
    assert [alert.run_url.rpartition("/")[2] for alert in open_day.alerts.sent] == [first.run_id, again.run_id]


def _lost(day, **tags):
    """Add a run whose worker was lost before it did anything."""
    all_tags = {"dagster/partition": str(DAY), **tags}
    run = dg.DagsterRun(job_name="business_audit_daily", tags=all_tags, status=dg.DagsterRunStatus.STARTED)
    with freeze_time(NOW):
        day.instance.add_run(run)
        day.instance.report_run_failed(run, "Detected run worker status UNHEALTHY")
    return run.run_id


def test_a_re_execution_whose_worker_is_lost_has_a_class_of_its_own_and_its_row_is_closed(open_day):
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "403")
    first = _run(open_day)
    _tick(open_day)
    again = _lost(open_day, **_of_parent(open_day, first.run_id))
    assert past_runs(open_day.instance, AUDIT, [DAY])[DAY][1].failure_class is None
    row = open_day.rows.get(first.run_id, DATA_PRODUCT)
    open_day.rows.put(replace(row, correlation_id=again, status="IN_PROGRESS"))
    assert f"Run {again}: WORKER_LOST; no alert is sent: run {again} failed with WORKER_LOST: next" in _tick(open_day)
    assert open_day.rows.get(again, DATA_PRODUCT).status == "FAILED"
    assert open_day.instance.get_run_by_id(again).tags["cdi/failure_class"] == "WORKER_LOST"
    assert past_runs(open_day.instance, AUDIT, [DAY])[DAY][1].failure_class is FailureClass.WORKER_LOST


def test_that_a_cause_is_over_is_not_copied_to_a_re_execution(open_day):
    first = {"cdi/launched_by": "sensor"}
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "403")
    run_id = _run(open_day, tags=first).run_id
    _tick(open_day)
    open_day.spark.failure = None
    assert _run(open_day).success
    _tick(open_day)
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "403")
    open_day.put_object("10_19")
    _run(open_day, tags=_of_parent(open_day, run_id))
    _tick(open_day)
    open_day.spark.failure = None
    assert _run(open_day).success
    _tick(open_day)
    assert [alert.kind for alert in open_day.alerts.sent] == ["FAILED", "FAILED_OVER"] * 2


def test_what_an_earlier_version_reported_is_not_reported_again(open_day):
    told = {"cdi/told": "DKS_FORBIDDEN; alert sent.", ".dagster/cdi_row_closed": "true"}
    _lost(open_day, **told)
    assert "There is no failed run" in _tick(open_day)


def _backfill(day, storage_day, at, backfill="b1", **tags):
    with freeze_time(at):
        return day.run(*RECORDS, storage_day=storage_day, tags={"dagster/backfill": backfill, **tags})


def test_a_backfill_with_one_cause_sends_one_alert_whatever_the_ticks(open_day):
    open_day.status.state = CoalescerState.COMPLETE
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "The certificate is refused.")
    days = [DAY - timedelta(days=40 + n) for n in range(12, 0, -1)]
    now = NOW
    for number, storage_day in enumerate(days):
        open_day.put_object("0_9", storage_day=storage_day)
        now += timedelta(minutes=1)
        _backfill(open_day, storage_day, now)
        if number % 5 == 4:
            _tick(open_day, now)
    _tick(open_day, now)
    (alert,) = open_day.alerts.sent
    assert list(alert.storage_days) == days[:5]
    assert alert.title == "DKS_FORBIDDEN: data:businessAudit of 5 storage days, 2023-02-02 to 2023-02-06, failed"
    assert alert.text.splitlines()[0] == "2023-02-02: The certificate is refused."
    told = [run.tags["cdi/told"] for run in open_day.instance.get_runs()]
    assert sum("alert sent with that of run" in text for text in told) == 7
    # What goes on is reminded of, once a day, with all its days; one that has been published since is none of them.
    open_day.spark.failure = None
    with freeze_time(now + timedelta(hours=1)):
        assert open_day.run(*RECORDS, storage_day=days[0]).success
    for hours in (23, 24.1, 25, 47):
        _tick(open_day, now + timedelta(hours=hours))
    first, reminder = open_day.alerts.sent
    assert list(reminder.storage_days) == days[1:]
    assert reminder.title.startswith("Still: DKS_FORBIDDEN: data:businessAudit of 11 storage days")
    # Another backfill, and another class, are causes of their own.
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "The certificate is refused.")
    _backfill(open_day, days[0], now + timedelta(hours=47), backfill="b2")
    open_day.spark.failure = CdiError(FailureClass.INPUT_INVALID, "overlap")
    open_day.put_object("0_9", storage_day=days[0] - timedelta(days=1))
    _backfill(open_day, days[0] - timedelta(days=1), now + timedelta(hours=47))
    _tick(open_day, now + timedelta(hours=47))
    assert [alert.failure_class for alert in open_day.alerts.sent[2:]] == ["DKS_FORBIDDEN", "INPUT_INVALID"]


def test_a_cause_that_was_fixed_and_comes_back_is_alerted_at_once(open_day):
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "403")
    first = {"cdi/launched_by": "sensor"}
    _run(open_day, tags=first)
    _tick(open_day)
    open_day.spark.failure = None
    assert _run(open_day).success
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "403")
    open_day.put_object("10_19")
    _run(open_day, tags=first)
    _tick(open_day)
    assert _alerted(open_day) == ["DKS_FORBIDDEN"] * 2


def test_that_a_cause_is_over_is_sent_once_under_its_key_when_its_last_day_has_succeeded(open_day):
    open_day.status.state = CoalescerState.COMPLETE
    days = [DAY - timedelta(days=60 + n) for n in (1, 0)]
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "403")
    for storage_day in days:
        open_day.put_object("0_9", storage_day=storage_day)
        _backfill(open_day, storage_day, NOW)
    _tick(open_day)
    open_day.spark.failure = None
    for storage_day in days:
        assert [alert.kind for alert in open_day.alerts.sent] == ["FAILED"]
        _backfill(open_day, storage_day, NOW, backfill="b2")
        open_day.alerts.refuse = True
        _tick(open_day, NOW + timedelta(minutes=1))
        open_day.alerts.refuse = False
        _tick(open_day, NOW + timedelta(minutes=2))
        _tick(open_day, NOW + timedelta(minutes=3))
    failed, over = open_day.alerts.sent
    assert (over.kind, over.key, list(over.storage_days)) == ("FAILED_OVER", failed.key, days)
    assert (
        over.title == "No longer failed: DKS_FORBIDDEN: data:businessAudit of 2 storage days, 2023-01-24 to 2023-01-25"
    )


def test_a_run_of_the_input_alone_that_fails_is_not_over_because_an_earlier_run_of_its_day_succeeded(open_day):
    open_day.put_object("0_9")
    assert _run(open_day).success
    overlap = open_day.put_object("5_12")
    later = [NOW + timedelta(hours=hours) for hours in (1, 2, 3)]
    with freeze_time(later[0]):
        assert not open_day.run(INPUT).success
    _tick(open_day, later[0])
    _tick(open_day, later[0] + timedelta(minutes=1))
    assert [(alert.kind, alert.failure_class) for alert in open_day.alerts.sent] == [("FAILED", "INPUT_INVALID")]
    Path(open_day.corporate.uri(overlap).removeprefix("file://")).unlink()
    with freeze_time(later[1]):
        assert open_day.run(INPUT).success
    _tick(open_day, later[2])
    assert [alert.kind for alert in open_day.alerts.sent] == ["FAILED", "FAILED_OVER"]


def test_a_run_of_the_input_alone_is_over_when_a_later_run_publishes_its_day(open_day):
    open_day.put_object("0_9")
    overlap = open_day.put_object("5_12")
    assert not _run(open_day, INPUT).success
    _tick(open_day)
    Path(open_day.corporate.uri(overlap).removeprefix("file://")).unlink()
    with freeze_time(NOW + timedelta(hours=1)):
        assert open_day.run(*RECORDS).success
    _tick(open_day, NOW + timedelta(hours=1))
    assert [alert.kind for alert in open_day.alerts.sent] == ["FAILED", "FAILED_OVER"]


@pytest.mark.parametrize(("failing", "is_over"), [("ingest_daily", False), ("publish_tables", True)])
def test_tables_alone_are_no_success_where_the_records_failed(open_day, failing, is_over):
    whole = (*RECORDS, *TABLES)
    assert _run(open_day, *whole).success
    open_day.put_object("10_19")
    open_day.spark.failure_of = {failing: CdiError(FailureClass.JOB_FAILED, "It broke.")}
    with freeze_time(NOW + timedelta(hours=1)):
        assert not open_day.run(*whole).success
    _tick(open_day, NOW + timedelta(hours=1))
    open_day.spark.failure_of = {}
    with freeze_time(NOW + timedelta(hours=2)):
        assert open_day.run(*TABLES).success
    _tick(open_day, NOW + timedelta(hours=2))
    assert [alert.kind for alert in open_day.alerts.sent] == ["FAILED", *["FAILED_OVER"] * is_over]
    with freeze_time(NOW + timedelta(hours=3)):
        assert open_day.run(*whole).success
    _tick(open_day, NOW + timedelta(hours=3))
    assert [alert.kind for alert in open_day.alerts.sent] == ["FAILED", "FAILED_OVER"]


def test_a_failure_of_records_is_over_when_tables_are_made_of_records_that_came_from_a_terminal(open_day):
    open_day.spark.failure_of = {"ingest_daily": CdiError(FailureClass.JOB_FAILED, "It broke.")}
    assert not _run(open_day, *RECORDS, *TABLES).success
    _tick(open_day)
    publish_mark(open_day, DAY, run_id="of-a-terminal", at=NOW + timedelta(minutes=1))
    with freeze_time(NOW + timedelta(hours=1)):
        assert open_day.run(*TABLES).success
    _tick(open_day, NOW + timedelta(hours=1))
    assert [alert.kind for alert in open_day.alerts.sent] == ["FAILED", "FAILED_OVER"]


def test_a_cause_that_goes_on_is_reminded_of_for_a_week(open_day):
    open_day.status.state = CoalescerState.COMPLETE
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "403")
    old = DAY - timedelta(days=40)
    open_day.put_object("0_9", storage_day=old)
    _backfill(open_day, old, NOW)
    for hours in range(0, 21 * 24, 6):
        _tick(open_day, NOW + timedelta(hours=hours, minutes=1))
    assert [alert.title.partition(":")[0] for alert in open_day.alerts.sent] == ["DKS_FORBIDDEN", *["Still"] * 6]


def test_offsets_that_are_back_as_they_were_published_end_their_cause_without_a_run(open_day, tmp_path):
    open_day.status.state = CoalescerState.COMPLETE
    open_day.put_object("0_9")
    lost = open_day.put_object("10_19")
    assert open_day.run().success
    there = Path(open_day.corporate.uri(lost).removeprefix("file://"))
    kept = there.rename(tmp_path / "kept")
    _backfill(open_day, DAY, NOW)
    _tick(open_day)
    _tick(open_day, NOW + timedelta(minutes=1))
    assert [(alert.kind, alert.failure_class) for alert in open_day.alerts.sent] == [("FAILED", "OFFSETS_LOST")]
    kept.rename(there)
    _tick(open_day, NOW + timedelta(minutes=2))
    _tick(open_day, NOW + timedelta(minutes=3))
    failed, over = open_day.alerts.sent
    assert (over.kind, over.key) == ("FAILED_OVER", failed.key)
    assert "its offsets are back as published: 2023-03-26" in over.text


def test_a_process_that_ends_between_alert_and_tag_sends_it_twice_rather_than_never(open_day, monkeypatch):
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "403")
    _backfill(open_day, DAY, NOW)
    with monkeypatch.context() as patched:
        patched.setattr(
            "cdi_dagster.sensors.failure_report.FailureReporter._done", lambda *_: (_ for _ in ()).throw(SystemExit)
        )
        with pytest.raises(SystemExit):
            _tick(open_day)
    _tick(open_day)
    _tick(open_day)
    assert len(open_day.alerts.sent) == 2


def test_runs_that_failed_long_ago_or_of_other_things_are_let_be(open_day):
    open_day.spark.failure = CdiError(FailureClass.INPUT_INVALID, "overlap")
    _run(open_day)
    with freeze_time(NOW):
        open_day.instance.add_run(dg.DagsterRun(job_name="other", status=dg.DagsterRunStatus.FAILURE))
    assert "There is no failed run" in _tick(open_day, NOW + timedelta(days=2))
    _tick(open_day)
    assert len(open_day.alerts.sent) == 1
