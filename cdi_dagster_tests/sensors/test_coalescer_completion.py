"""The sensor: what the schedule did not launch, once, oldest first; and a quiet tick says what it waits for."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from freezegun import freeze_time

from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.storage.interface import StorageUnavailableError
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DAY, DagsterDay
from cdi_dagster_tests.instance import instance_on_disk

SENSOR = "business_audit_coalescer_completion_sensor"
NOON = datetime(2023, 3, 27, 12, tzinfo=UTC)


@pytest.fixture
def day(tmp_path):
    with instance_on_disk() as instance:
        found = DagsterDay(tmp_path, instance)
        found.status.state = CoalescerState.NOT_STARTED
        yield found


def _tick(day, at=NOON, cursor=None):
    repository = day.definitions.get_repository_def()
    context = dg.build_sensor_context(
        instance=day.instance, repository_def=repository, resources=day.instigator_resources, cursor=cursor
    )
    with freeze_time(at):
        return repository.get_sensor_def(SENSOR).evaluate_tick(context)


def _complete(day, *days):
    day.status.by_day |= dict.fromkeys(days, CoalescerState.COMPLETE)


def _launched(data):
    return [request.partition_key for request in data.run_requests]


def _run_as(day, request):
    return day.run(storage_day=date.fromisoformat(request.partition_key), tags=request.tags)


def test_a_closed_gate_skips_and_names_every_day_it_waits_for(day):
    data = _tick(day)
    assert not data.run_requests
    lines = data.skip_message.splitlines()
    assert len(lines) == day.settings.look_back_days
    assert lines[-1].startswith("2023-03-26: coalescer NOT_STARTED: ")


def test_the_day_is_launched_when_its_gate_opens(day):
    day.put_object("0_9")
    _complete(day, DAY)
    assert _launched(_tick(day)) == ["2023-03-26"]


@pytest.mark.parametrize(
    ("now", "launched"),
    [
        ("2023-03-27T09:31:59", []),
        ("2023-03-27T09:32:00", ["2023-03-26"]),
        ("2023-03-27T23:59:59", ["2023-03-26"]),
        ("2023-03-28T00:00:00", ["2023-03-26"]),
        ("2023-03-28T09:31:00", ["2023-03-26"]),
    ],
)
def test_the_sensor_has_a_day_from_two_minutes_after_it_is_due_on(day, now, launched):
    day.put_object("0_9")
    _complete(day, DAY)
    assert _launched(_tick(day, datetime.fromisoformat(now).replace(tzinfo=UTC))) == launched


@pytest.mark.parametrize(("now", "youngest"), [("2024-03-01T10:00", "2024-02-29"), ("2024-01-01T10:00", "2023-12-31")])
def test_month_end_leap_day_and_new_year_are_days_like_others(day, now, youngest):
    _complete(day, date.fromisoformat(youngest))
    assert _launched(_tick(day, datetime.fromisoformat(now).replace(tzinfo=UTC))) == [youngest]


def test_missed_days_are_caught_up_oldest_first_a_few_a_tick(day):
    missed_days = [DAY - timedelta(days=n) for n in range(3, -1, -1)]
    for missed in missed_days:
        day.put_object("0_9", storage_day=missed)
    _complete(day, *missed_days)
    launched = []
    for _ in range(2):
        data = _tick(day)
        launched.append(_launched(data))
        for request in data.run_requests:
            assert _run_as(day, request).success
    assert launched == [[str(missed) for missed in missed_days[:3]], [str(DAY)]]
    assert not _tick(day).run_requests


def test_a_published_day_is_left_alone_even_on_a_fresh_dagster(day, tmp_path):
    day.put_object("0_9")
    _complete(day, DAY)
    assert _run_as(day, _tick(day).run_requests[0]).success
    with instance_on_disk() as fresh:
        day.instance = fresh
        assert not _tick(day).run_requests


def test_a_day_that_was_coalesced_again_is_launched_again_exactly_once(day):
    day.put_object("0_9")
    _complete(day, DAY)
    first = _tick(day).run_requests[0]
    assert _run_as(day, first).success
    day.put_object("10_19")
    second = _tick(day).run_requests[0]
    assert second.run_key != first.run_key
    assert _run_as(day, second).success
    assert not _tick(day).run_requests


def test_a_run_at_work_of_any_origin_holds_its_day(day):
    _complete(day, DAY)
    job = day.definitions.resolve_job_def("business_audit_daily")
    day.instance.create_run_for_job(job, tags={"dagster/partition": str(DAY)}, status=dg.DagsterRunStatus.STARTED)
    data = _tick(day)
    assert not data.run_requests
    assert "is running" in data.skip_message


def test_a_failure_that_a_rerun_does_not_fix_is_left_to_a_person(day):
    day.put_object("not-offsets")
    _complete(day, DAY)
    assert not _run_as(day, _tick(day).run_requests[0]).success
    data = _tick(day, datetime.now(UTC).replace(year=2023, month=3, day=27, hour=20))
    assert not data.run_requests
    assert "INPUT_INVALID, which a re-run does not fix" in data.skip_message


def test_what_is_published_but_cannot_be_read_waits_and_says_so(day, monkeypatch):
    _complete(day, DAY)

    def refuse(key):
        raise StorageUnavailableError("no permission")

    monkeypatch.setattr(day.published, "read", refuse)
    data = _tick(day)
    assert not data.run_requests
    assert "could not be read: no permission" in data.skip_message


def test_a_tick_asks_about_the_look_back_only(day):
    _tick(day)
    assert day.status.asked == [DAY - timedelta(days=n) for n in range(6, -1, -1)]


def test_before_the_first_storage_day_there_is_nothing_to_look_at(day):
    assert _tick(day, datetime(2023, 1, 1, 12, tzinfo=UTC)).skip_message == "No storage day is due yet."


def test_runs_of_another_collection_are_not_counted(day):
    assert AUDIT.asset_name == "business_audit"
    _complete(day, DAY)
    job = day.definitions.resolve_job_def("equality_daily")
    day.instance.create_run_for_job(job, tags={"dagster/partition": str(DAY)}, status=dg.DagsterRunStatus.STARTED)
    assert _launched(_tick(day)) == ["2023-03-26"]
