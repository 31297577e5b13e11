"""An input that changes under a run: pinned again and run again by itself, whoever asked, and not for ever."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from freezegun import freeze_time

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.ingestion.ingestion_lease import ingestion_lease
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DAY, failure_of, metadata_of
from cdi_dagster_tests.gate.instigators import RECORDS, launched, publish_mark, run_as, sensor_tick

INPUT, DAILY_RECORDS = RECORDS
NOON = datetime(2023, 3, 27, 12, tzinfo=UTC)


def _changed(key="x"):
    return CdiError(FailureClass.INPUT_CHANGED, f"{key} was pinned, but at 2023-03-27T09:31:00Z it is gone.")


@pytest.fixture
def yesterday_only(day):
    """Only one day is not published."""
    for n in range(1, 7):
        publish_mark(day, DAY - timedelta(days=n))
    day.put_object("0_9")
    return day


def test_it_is_pinned_again_and_run_again_when_the_gate_is_open_again(yesterday_only):
    day = yesterday_only
    day.spark.failure = _changed()
    first = sensor_tick(day, NOON).run_requests[0]
    with freeze_time(NOON):
        assert failure_of(run_as(day, first))["failure_class"] == "INPUT_CHANGED"
    day.status.by_day[DAY] = CoalescerState.RUNNING
    assert not sensor_tick(day, NOON).run_requests
    day.put_object("10_19")
    day.status.by_day[DAY] = CoalescerState.COMPLETE
    (second,) = sensor_tick(day, NOON).run_requests
    assert second.run_key != first.run_key
    day.spark.failure = None
    result = run_as(day, second)
    assert result.success
    assert metadata_of(result, INPUT)["objects"] == "2"
    assert not sensor_tick(day, NOON).run_requests


def test_a_change_under_a_persons_run_of_the_records_alone_is_mended_by_a_run_that_pins_anew(yesterday_only):
    day = yesterday_only
    assert day.run(INPUT).success
    key = day.put_object("10_19")
    result = day.run(DAILY_RECORDS)
    assert failure_of(result)["failure_class"] == "INPUT_CHANGED"
    assert key in failure_of(result)["cause"]
    assert day.spark.launched == []
    (request,) = sensor_tick(day, NOON).run_requests
    assert run_as(day, request).success


def test_a_backfilled_day_long_ago_is_mended_too(day):
    long_ago = DAY - timedelta(days=60)
    day.put_object("0_9", storage_day=long_ago)
    day.status.state = CoalescerState.NOT_STARTED
    day.status.by_day[long_ago] = CoalescerState.COMPLETE
    day.spark.failure = _changed()
    with freeze_time(NOON):
        assert not day.run(*RECORDS, storage_day=long_ago).success
    assert launched(sensor_tick(day, NOON)) == [str(long_ago)]


@pytest.mark.parametrize("storage_day", [DAY, DAY - timedelta(days=60)])
def test_a_day_that_lost_offsets_is_run_again_when_its_listing_changes_and_not_before(yesterday_only, storage_day):
    day = yesterday_only
    if storage_day != DAY:
        publish_mark(day, DAY)
        day.put_object("0_9", storage_day=storage_day)
    lost = day.put_object("10_19", storage_day=storage_day)
    assert day.run(INPUT, storage_day=storage_day).success
    content = day.corporate.read(lost)
    day.corporate.delete([lost])
    with freeze_time(NOON):
        failure = failure_of(day.run(*RECORDS, storage_day=storage_day))
    assert failure["failure_class"] == "OFFSETS_LOST"
    assert lost in failure["cause"]
    for minutes in range(3):
        tick = sensor_tick(day, NOON + timedelta(minutes=minutes))
        assert str(storage_day) not in launched(tick)
        assert "failed with OFFSETS_LOST, and the day's listing is the same" in (tick.skip_message or "")
    # Another object is no help, but the listing is another: it is run once.
    day.put_object("20_29", storage_day=storage_day)
    for request in sensor_tick(day, NOON).run_requests:
        with freeze_time(NOON):
            assert failure_of(run_as(day, request))["failure_class"] == "OFFSETS_LOST"
    assert not sensor_tick(day, NOON).run_requests
    day.corporate.write(lost, content)
    (request,) = sensor_tick(day, NOON).run_requests
    assert request.tags["cdi/launched_because"].endswith(" failed with OFFSETS_LOST")
    assert run_as(day, request).success
    assert not sensor_tick(day, NOON).run_requests


def test_a_day_before_the_first_storage_day_is_left_alone_and_the_others_go_on(yesterday_only):
    """As after the cut-over, where a canary's day was interrupted and CDI_FIRST_STORAGE_DAY is later now."""
    day, canary = yesterday_only, DAY - timedelta(days=60)
    day.put_object("0_9", storage_day=canary)
    day.spark.failure = CdiError(FailureClass.INTERRUPTED, "Dagster was stopped during the run.")
    with freeze_time(NOON):
        assert failure_of(day.run(*RECORDS, storage_day=canary))["failure_class"] == "INTERRUPTED"
    assert launched(sensor_tick(day, NOON)) == [str(DAY), str(canary)]
    day.settings = day.settings.model_copy(update={"first_storage_day": DAY - timedelta(days=30)})
    day.use()
    assert launched(sensor_tick(day, NOON)) == [str(DAY)]


def test_this_mornings_day_goes_before_a_refused_backfill_that_is_run_when_its_gate_opens(yesterday_only):
    day = yesterday_only
    refused = [DAY - timedelta(days=n) for n in range(75, 70, -1)]
    day.status.by_day |= dict.fromkeys(refused, CoalescerState.RUNNING)
    for storage_day in refused:
        with freeze_time(NOON):
            assert not day.run(*RECORDS, storage_day=storage_day).success
    day.status.by_day |= dict.fromkeys(refused, CoalescerState.COMPLETE)
    requests = sensor_tick(day, NOON).run_requests
    asked = [(request.partition_key, request.tags["dagster/priority"]) for request in requests]
    assert asked == [(str(DAY), "10"), *[(str(storage_day), "0") for storage_day in refused[:3]]]


def test_an_old_day_that_the_gate_refused_is_run_when_it_opens(day):
    long_ago = DAY - timedelta(days=60)
    day.put_object("0_9", storage_day=long_ago)
    day.status.state = CoalescerState.NOT_STARTED
    day.status.by_day[long_ago] = CoalescerState.RUNNING
    with freeze_time(NOON):
        failure = failure_of(day.run(*RECORDS, storage_day=long_ago))
    assert failure["failure_class"] == "COALESCER_RUNNING"
    assert f"{long_ago}: coalescer RUNNING" in sensor_tick(day, NOON).skip_message
    day.status.by_day[long_ago] = CoalescerState.COMPLETE
    (request,) = sensor_tick(day, NOON).run_requests
    assert run_as(day, request).success
    assert str(long_ago) not in (sensor_tick(day, NOON).skip_message or "")


def test_an_interrupted_run_is_followed_by_another_at_once_however_old_its_day_is_and_nobody_is_alerted(day):
    long_ago = DAY - timedelta(days=60)
    day.put_object("0_9", storage_day=long_ago)
    day.status.state = CoalescerState.NOT_STARTED
    day.status.by_day[long_ago] = CoalescerState.COMPLETE
    day.spark.failure = dg.DagsterExecutionInterruptedError()
    with freeze_time(NOON):
        assert not day.run(*RECORDS, storage_day=long_ago).success
    assert "INTERRUPTED; no alert is sent: " in sensor_tick(day, NOON, name="failed_runs_sensor").skip_message
    (request,) = sensor_tick(day, NOON).run_requests
    day.spark.failure = None
    assert run_as(day, request).success
    assert not sensor_tick(day, NOON).run_requests
    assert long_ago not in [
        late for alert in day.alerts.sent for late in alert.storage_days
    ]  # the look-back's own days are late


def test_the_budget_is_in_the_run_records_and_a_fresh_sensor_finds_it_used_up(yesterday_only):
    day = yesterday_only
    day.spark.failure = _changed()
    for n in range(3):
        day.put_object(f"{n + 1}0_{n + 1}9")  # each time another input
        (request,) = sensor_tick(day, NOON).run_requests
        assert not run_as(day, request).success
    day.put_object("90_99")
    data = sensor_tick(day, NOON)
    assert not data.run_requests
    assert "the input of 3 runs changed under them" in data.skip_message
    # A person's click re-opens the day.
    day.spark.failure = None
    assert day.run(*RECORDS).success


def test_another_installation_that_ingests_the_day_is_named_and_nothing_is_launched(yesterday_only):
    day = yesterday_only
    with ingestion_lease(day.published, AUDIT.on(DAY), holder="run of another Dagster", lease_seconds=2):
        failure = failure_of(day.run(*RECORDS))
    assert failure["failure_class"] == "DUPLICATE_RUN"
    assert failure["cause"].startswith("run of another Dagster (")
    assert day.spark.launched == []
    assert day.run(*RECORDS).success


def test_an_override_of_the_records_alone_is_written_down_where_it_counts(yesterday_only):
    day = yesterday_only
    assert day.run(INPUT).success
    day.status.by_day[DAY] = CoalescerState.UNKNOWN
    result = day.run(DAILY_RECORDS, config={DAILY_RECORDS: {"override_gate": True}})
    metadata = metadata_of(result, DAILY_RECORDS)
    assert metadata["gate_overridden"] is True
    assert metadata["gate_was"].startswith("UNKNOWN: ")
    assert day.rows.writes[-1].detail["gate_was"].startswith("UNKNOWN: ")


def test_the_input_says_how_the_day_compares_with_the_usual(yesterday_only):
    day = yesterday_only
    for n in range(1, 15):
        day.put_object("0_9", storage_day=DAY - timedelta(days=n), content=b"x" * 100)
    day.put_object("10_19", content=b"x" * 309)
    metadata = metadata_of(day.run(INPUT), INPUT)
    assert metadata["size_against_the_usual"].endswith(": 3.1x the usual volume")
    assert (metadata["usual_bytes"], metadata["usual_objects"], metadata["usual_offsets"]) == ("100", "1", "10")
    day.status.by_day[DAY] = CoalescerState.RUNNING
    assert "3.1x the usual volume" in failure_of(day.run(INPUT))["detail"]["size"]
