"""The optional alerts STARTED and COMPLETED: once a run of automation, with what a person needs."""

from datetime import UTC, datetime, timedelta

from freezegun import freeze_time

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.resources.alert_sinks.sns import sns_message
from cdi_dagster_tests.gate.instigators import RECORDS, sensor_tick

NOW = datetime(2023, 3, 27, 10, tzinfo=UTC)
AUTOMATED = {"cdi/launched_by": "sensor"}


def _choose(day, alert_on):
    day.settings = day.settings.model_copy(update={"alert_on": alert_on})


def _run(day, tags=AUTOMATED):
    with freeze_time(NOW):
        return day.run(*RECORDS, tags=tags)


def _tick(day, minutes=0):
    return sensor_tick(day, NOW + timedelta(minutes=minutes), name="failed_runs_sensor").skip_message


def _sent(day):
    return [alert.kind for alert in day.alerts.sent]


def test_a_run_of_automation_is_reported_once_when_it_began_and_once_when_it_succeeded(open_day):
    _choose(open_day, "STARTED, COMPLETED")
    run_id = _run(open_day).run_id
    _run(open_day, tags={})  # of a person
    open_day.alerts.refuse = True
    assert "STARTED of data:businessAudit could not be sent, the next tick retries" in _tick(open_day)
    open_day.alerts.refuse = False
    for minutes in range(3):
        _tick(open_day, minutes)
    assert _sent(open_day) == ["STARTED", "COMPLETED"]
    completed = open_day.alerts.sent[1]
    assert completed.title == "COMPLETED: data:businessAudit of storage day 2023-03-26 is complete"
    assert completed.run_url.endswith(run_id)
    attributes = sns_message(completed, "production")["MessageAttributes"]
    assert attributes["notification_type"]["StringValue"] == "Information"


def test_a_failed_run_is_not_complete_and_by_default_nothing_is_sent_of_a_good_one(open_day):
    _run(open_day)
    _tick(open_day)
    assert _sent(open_day) == []
    _choose(open_day, "COMPLETED")
    open_day.spark.failure = CdiError(FailureClass.DKS_FORBIDDEN, "403")
    _run(open_day)
    _tick(open_day)
    assert _sent(open_day) == ["FAILED", "COMPLETED"]  # the first run's
