"""Late: red, one alert with what the day waits for, green when it is published; also where the alert fails."""

import json
from datetime import UTC, date, datetime, timedelta

import boto3
import dagster as dg
import pytest
from freezegun import freeze_time

from cdi_dagster.checks import on_time
from cdi_dagster.core.alert import Alert, AlertLevel
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.core.storage_keys import mark_key
from cdi_dagster.names import keys_of
from cdi_dagster.resources.alerts import AlertNotSentError, AlertResource, alert_sink
from cdi_dagster.settings import load_settings
from cdi_dagster.storage.interface import TransientStorageError
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DAY, checks_of
from cdi_dagster_tests.gate.hearing import hearing
from cdi_dagster_tests.gate.instigators import RECORDS, launched, publish_mark, run_as, sensor_tick
from cdi_dagster_tests.s3_server import REGION, s3_endpoint

EVERYTHING = [key.to_user_string() for key in keys_of(AUDIT)]
BEFORE = datetime(2023, 3, 27, 11, 59, 59, tzinfo=UTC)
LATE = datetime(2023, 3, 27, 12, 0, tzinfo=UTC)
ALERT = Alert(
    kind="LATE", key="k", title="t", text="x", collection_id="data:equality", storage_days=(DAY,), runbook="r"
)


@pytest.fixture
def late_day(day):
    """Where automation is on, only yesterday is not published; its coalescer is at work."""
    day.settings = load_settings(home=day.settings.home, automation=True)
    day.use()
    for n in range(1, 8):
        earlier = DAY - timedelta(days=n)
        day.put_object("0_9", storage_day=earlier)
        publish_mark(day, earlier)
    day.put_object("0-9", content=b"x" * 10)
    day.status.by_day[DAY] = CoalescerState.RUNNING
    day.status.reason = "job abc, 3 h 2 min"
    return day


def _events(data, kind):
    return [event for event in data.asset_events or [] if isinstance(event, kind)]


def _on_time(data):
    return [event for event in _events(data, dg.AssetCheckEvaluation) if event.check_name == "published_on_time"]


def test_at_the_late_time_the_day_is_alerted_once_with_the_gates_last_reason(late_day):
    before = sensor_tick(late_day, BEFORE)
    assert late_day.alerts.told == []
    data = sensor_tick(late_day, LATE, before.cursor)
    assert late_day.alerts.told == [("LATE", str(DAY))]
    (alert,) = late_day.alerts.sent
    assert "job abc, 3 h 2 min" in alert.text
    assert "1 objects, 10 B" in alert.text
    assert alert.runbook == "https://runbook#late"
    assert (alert.failure_class, alert.owner) == ("COALESCER_RUNNING", "corporate storage (coalescer) team")
    (observation,) = _events(data, dg.AssetObservation)
    assert (observation.partition, observation.metadata["late"].value) == (str(DAY), True)
    assert [check.passed for check in _on_time(before)] == [True]
    (check,) = _on_time(data)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "job abc" in check.description
    again = sensor_tick(late_day, LATE + timedelta(hours=5), data.cursor)
    assert not again.asset_events
    assert len(late_day.alerts.sent) == 1


def test_it_turns_green_when_the_day_is_published_by_whomever(late_day):
    cursor = sensor_tick(late_day, LATE).cursor
    late_day.status.by_day[DAY] = CoalescerState.COMPLETE
    assert late_day.run(*RECORDS).success
    half = sensor_tick(late_day, LATE + timedelta(minutes=30), cursor)
    # The run materialised the records: the red is reported again, or it would count as that of the records before.
    assert [check.passed for check in _on_time(half)] == [False]
    assert late_day.alerts.told == [("LATE", str(DAY))]
    assert run_as(late_day, half.run_requests[0]).success
    data = sensor_tick(late_day, LATE + timedelta(hours=1), cursor)
    (check,) = _on_time(data)
    assert check.passed
    assert late_day.alerts.told == [("LATE", str(DAY)), ("LATE_OVER", str(DAY))]
    assert json.loads(data.cursor) == {"late": []}


def _click(day, storage_day, assets=RECORDS):
    """Materialise as the asset's page and a backfill do: with every check."""
    return day.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        partition_key=str(storage_day),
        instance=day.instance,
        raise_on_error=False,
        asset_selection=[dg.AssetKey.from_user_string(name) for name in assets],
    )


def test_the_check_in_a_run_is_red_while_any_day_is_late_and_green_after(late_day):
    earlier = DAY - timedelta(days=1)
    with freeze_time(LATE):
        backfilled = checks_of(_click(late_day, earlier, EVERYTHING))["published_on_time"]
    assert not backfilled.passed
    assert str(DAY) in backfilled.description
    late_day.status.by_day[DAY] = CoalescerState.COMPLETE
    with freeze_time(LATE):
        assert not checks_of(_click(late_day, DAY))["published_on_time"].passed
        (request,) = sensor_tick(late_day, LATE).run_requests
        assert run_as(late_day, request).success
        assert checks_of(_click(late_day, DAY))["published_on_time"].passed


@pytest.fixture
def damaged(late_day):
    """The mark of an earlier day of the look-back cannot be read."""
    earlier = DAY - timedelta(days=3)
    late_day.published.write(mark_key(AUDIT.on(earlier)), b"{}")
    return earlier


def test_a_day_whose_mark_cannot_be_read_is_late_with_its_reason_and_hides_no_other(late_day, damaged):
    data = sensor_tick(late_day, BEFORE)
    assert launched(data) == []
    (alert,) = late_day.alerts.sent
    assert (alert.kind, alert.storage_days, alert.level) == ("LATE", (damaged,), AlertLevel.ERROR)
    assert f"{mark_key(AUDIT.on(damaged))} cannot be read: KeyError" in alert.text
    assert "Automatically: nothing." in alert.text
    assert (alert.failure_class, alert.next_step) == (
        "INPUT_INVALID",
        "Run the day again with allow_fewer_offsets: that rewrites records and mark.",
    )
    assert [(check.passed, check.metadata["late"].value) for check in _on_time(data)] == [(False, str(damaged))]
    data = sensor_tick(late_day, LATE, data.cursor)
    assert late_day.alerts.told[1:] == [("LATE", str(DAY))]
    assert [check.metadata["late"].value for check in _on_time(data)] == [f"{damaged}, {DAY}"]
    publish_mark(late_day, damaged)
    sensor_tick(late_day, LATE + timedelta(minutes=1), data.cursor)
    assert late_day.alerts.told[2:] == [("LATE_OVER", str(damaged))]


def test_storage_that_does_not_answer_makes_no_day_late(late_day, monkeypatch):
    def refuse(key):
        raise TransientStorageError("SlowDown")

    with monkeypatch.context() as patched:
        patched.setattr(late_day.published, "read", refuse)
        data = sensor_tick(late_day, LATE)
    assert late_day.alerts.told == []
    assert _on_time(data) == []
    sensor_tick(late_day, LATE, data.cursor)
    assert late_day.alerts.told == [("LATE", str(DAY))]


@pytest.mark.parametrize("silent", [False, True])
def test_a_run_does_not_fail_because_another_day_cannot_be_read(late_day, damaged, monkeypatch, silent):
    late_day.status.by_day[DAY] = CoalescerState.COMPLETE
    if silent:

        def refuse(published, day):
            raise TransientStorageError(f"{day.storage_day}: SlowDown")

        monkeypatch.setattr(on_time, "is_whole", refuse)
    with freeze_time(LATE):
        result = _click(late_day, DAY, EVERYTHING)
    assert result.success
    check = checks_of(result)["published_on_time"]
    assert not check.passed
    if silent:
        assert (check.severity, "is not known" in check.description) == (dg.AssetCheckSeverity.WARN, True)
    else:
        assert f"{damaged} (INPUT_INVALID: " in check.description


def test_records_without_tables_are_late_and_the_alert_says_which_are_missing(late_day):
    late_day.status.by_day[DAY] = CoalescerState.COMPLETE
    late_day.spark.failure_of["publish_tables"] = CdiError(FailureClass.CLUSTER_LOST, "The cluster ended.")
    with freeze_time(BEFORE):
        assert not late_day.run().success
    cursor = sensor_tick(late_day, BEFORE).cursor
    assert late_day.alerts.told == []
    sensor_tick(late_day, LATE, cursor)
    (alert,) = late_day.alerts.sent
    assert (alert.kind, alert.failure_class, alert.owner) == ("LATE", "TABLES_MISSING", "CDI on-call engineer")
    assert alert.text.startswith(
        f"TABLES_MISSING: records are published, tables ({', '.join(AUDIT.table_names)}) are not: run "
    )


def test_a_published_day_that_is_ingested_again_after_the_late_time_is_not_late_while_its_tables_follow(late_day):
    late_day.status.by_day[DAY] = CoalescerState.COMPLETE
    with freeze_time(BEFORE):
        assert late_day.run().success
    later = LATE + timedelta(hours=2)
    late_day.put_object("10_19")
    with freeze_time(later):
        assert late_day.run(*RECORDS).success
    (request,) = sensor_tick(late_day, later).run_requests
    assert late_day.alerts.told == []
    late_day.spark.failure_of["publish_tables"] = CdiError(FailureClass.CLUSTER_LOST, "The cluster ended.")
    with freeze_time(later):
        assert not run_as(late_day, request).success
    data = sensor_tick(late_day, later)
    assert launched(data) == []
    assert late_day.alerts.told == [("LATE", str(DAY))]


def test_an_alert_that_cannot_be_sent_stops_no_launch_and_is_sent_later(late_day):
    late_day.status.by_day[DAY] = CoalescerState.COMPLETE
    late_day.alerts.refuse = True
    data = sensor_tick(late_day, LATE)
    assert len(data.run_requests) == 1
    assert not _events(data, dg.AssetObservation)
    assert [check.passed for check in _on_time(data)] == [False]  # it is true, whoever heard of it
    late_day.alerts.refuse = False
    sensor_tick(late_day, LATE + timedelta(minutes=1), data.cursor)
    assert late_day.alerts.told == [("LATE", str(DAY))]


def test_a_lost_cursor_tells_once_more_and_nonsense_is_no_cursor(late_day):
    for cursor in (None, "nonsense", "[]"):
        sensor_tick(late_day, LATE, cursor)
    assert len(late_day.alerts.sent) == 3


def test_a_daemon_that_is_back_after_fourteen_missed_days_sends_one_message_and_one_when_all_are_published(day):
    day.settings = load_settings(home=day.settings.home, automation=True, look_back_days=14)
    day.use()
    missed = [DAY - timedelta(days=n) for n in range(13, -1, -1)]
    for storage_day in missed:
        day.put_object("0_9", storage_day=storage_day)
    cursor, now = None, LATE + timedelta(hours=1)
    for _ in range(20):
        data = sensor_tick(day, now, cursor)
        cursor, now = data.cursor, now + timedelta(minutes=1)
        for request in data.run_requests:
            with freeze_time(now):
                assert run_as(day, request).success
    assert [(alert.kind, list(alert.storage_days)) for alert in day.alerts.sent] == [
        ("LATE", missed),
        ("LATE_OVER", missed),
    ]
    late, over = day.alerts.sent
    assert late.title == (
        "LATE: data:businessAudit, 14 storage days, 2023-03-13 to 2023-03-26, are not published at 12:00 UTC"
    )
    assert late.text.startswith("They are being run now, oldest first: there is nothing to do.\n2023-03-13: ")
    assert over.title == "No longer late: data:businessAudit, 14 storage days, 2023-03-13 to 2023-03-26"
    assert json.loads(cursor) == {"late": []}


def test_what_stays_late_is_reminded_of_once_a_day(late_day):
    following = DAY + timedelta(days=1)
    late_day.status.by_day[following] = CoalescerState.RUNNING
    cursor = None
    for hours in (0, 1, 20, 23, 24, 25, 47.9, 48.1):
        cursor = sensor_tick(late_day, LATE + timedelta(hours=hours), cursor).cursor
    # From the second day on the next one is late by the same cause, and is named with it.
    third = DAY + timedelta(days=2)
    days = [[day for day in alert.storage_days if day < third] for alert in late_day.alerts.sent]
    assert days[:3] == [[DAY], [DAY, following], [DAY, following]]


def test_a_coalescer_that_fails_after_the_message_is_reported_with_its_next_step_once(late_day):
    cursor = sensor_tick(late_day, LATE).cursor
    late_day.status.by_day[DAY] = CoalescerState.FAILED
    for hours in (1, 1.1, 1.2, 2, 12, 23):
        cursor = sensor_tick(late_day, LATE + timedelta(hours=hours), cursor).cursor
    first, failed = late_day.alerts.sent
    assert (first.failure_class, failed.failure_class) == ("COALESCER_RUNNING", "COALESCER_FAILED")
    assert failed.next_step == "Run the coalescer again for the day."
    assert (failed.kind, failed.key, failed.level) == ("LATE", first.key, first.level)


def test_that_there_is_nothing_to_do_is_taken_back_where_the_run_finds_the_gate_closed(late_day):
    late_day.status.by_day[DAY] = CoalescerState.COMPLETE
    data = sensor_tick(late_day, LATE)
    late_day.status.by_day[DAY] = CoalescerState.RUNNING
    with freeze_time(LATE):
        assert not run_as(late_day, data.run_requests[0]).success
    cursor = data.cursor
    for minutes in (1, 5, 12, 60):
        cursor = sensor_tick(late_day, LATE + timedelta(minutes=minutes), cursor).cursor
    first, waits = late_day.alerts.sent
    assert (first.next_step, first.level) == ("Nothing, while it is being run.", AlertLevel.WARNING)
    assert (waits.failure_class, waits.level) == ("COALESCER_RUNNING", AlertLevel.ERROR)


def test_a_webhook_gets_the_alert_as_json_and_its_refusal_is_an_error():
    with hearing(200, 500) as heard:
        sink = alert_sink(heard.url, token="", environment="test")
        sink.send(ALERT)
        assert (heard.alerts[0]["kind"], heard.alerts[0]["export_day"]) == ("LATE", "2023-03-27")
        with pytest.raises(AlertNotSentError, match="HTTP 500"):
            sink.send(ALERT)
    with pytest.raises(AlertNotSentError, match="does not respond"):
        sink.send(ALERT)


def test_an_sns_topic_gets_the_alert(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    topic = sns.create_topic(Name="late")["TopicArn"]
    queue = sqs.create_queue(QueueName="late")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    AlertResource(target=topic).create_resource(dg.build_init_resource_context()).send(ALERT)
    (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    assert json.loads(json.loads(message["Body"])["Message"])["storage_day"] == str(DAY)


def test_a_target_that_is_none_is_refused_with_the_fix(tmp_path):
    with pytest.raises(Exception, match="write https://"):
        load_settings(home=tmp_path, alert_target="somebody@example.org")


def test_a_day_before_the_first_storage_day_is_never_late(day):
    with freeze_time(datetime(2023, 1, 1, 13, tzinfo=UTC)):
        data = sensor_tick(day, datetime(2023, 1, 1, 13, tzinfo=UTC))
    assert not data.asset_events
    assert day.settings.first_storage_day == date(2023, 1, 1)


def test_where_nothing_is_automated_no_other_day_is_due(day):
    day.put_object("0_9")
    assert checks_of(_click(day, DAY))["published_on_time"].passed
