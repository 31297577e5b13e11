"""The daily schedule: yesterday's storage day at 09:30 UTC if the gate is open; otherwise it says who has it."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from freezegun import freeze_time

from cdi_dagster.core.gate import CoalescerState
from cdi_dagster_tests.dagster_day import DagsterDay
from cdi_dagster_tests.instance import instance_on_disk


@pytest.fixture
def day(tmp_path):
    with instance_on_disk() as instance:
        yield DagsterDay(tmp_path, instance)


def _tick(day, at, *, seconds_late=5):
    repository = day.definitions.get_repository_def()
    with freeze_time(at + timedelta(seconds=seconds_late)):
        context = dg.build_schedule_context(
            instance=day.instance,
            scheduled_execution_time=at,
            resources={name: day.instigator_resources[name] for name in ("coalescer_status", "roots")},
            repository_def=repository,
        )
        return repository.get_schedule_def("business_audit_daily_schedule").evaluate_tick(context)


@pytest.mark.parametrize(
    ("tick", "storage_day"),
    [
        ("2023-03-25T09:30", "2023-03-24"),
        ("2023-03-26T09:30", "2023-03-25"),  # clocks go forward
        ("2023-03-27T09:30", "2023-03-26"),
        ("2023-10-29T09:30", "2023-10-28"),  # clocks go back
        ("2023-05-01T09:30", "2023-04-30"),
        ("2024-03-01T09:30", "2024-02-29"),
        ("2024-01-01T09:30", "2023-12-31"),
    ],
)
def test_an_open_gate_launches_yesterdays_storage_day(day, tick, storage_day):
    (request,) = _tick(day, datetime.fromisoformat(tick).replace(tzinfo=UTC)).run_requests
    assert request.partition_key == storage_day
    assert request.tags["cdi/launched_by"] == "schedule"
    assert request.tags["cdi/collection"] == "data.businessAudit"
    assert request.tags["cdi/export_day"] == str(date.fromisoformat(storage_day) + timedelta(days=1))
    assert request.run_key == f"{request.tags['cdi/launch']}|1"
    assert request.tags["cdi/launch"].startswith(f"{storage_day}|")


TICK = datetime(2023, 3, 27, 9, 30, tzinfo=UTC)


def test_a_closed_gate_skips_with_its_reason_and_says_that_the_sensor_follows(day):
    day.status.state = CoalescerState.RUNNING
    day.status.reason = "job abc, 42 min; usually 11 min"
    data = _tick(day, TICK)
    assert not data.run_requests
    assert "RUNNING: job abc, 42 min" in data.skip_message
    assert "sensor" in data.skip_message


def test_a_tick_that_is_evaluated_late_leaves_the_day_to_the_sensor(day):
    assert "the sensor launches the day" in _tick(day, TICK, seconds_late=61).skip_message


def test_a_published_day_is_not_launched_again(day):
    day.put_object("0_9")
    assert day.run().success
    assert _tick(day, TICK).skip_message == "2023-03-26: published"


def test_a_day_with_a_live_run_is_not_launched_again(day):
    job = day.definitions.resolve_job_def("business_audit_daily")
    day.instance.create_run_for_job(job, tags={"dagster/partition": "2023-03-26"}, status=dg.DagsterRunStatus.STARTED)
    assert "is running" in _tick(day, TICK).skip_message


def test_a_day_before_the_first_storage_day_is_skipped(day):
    assert "first storage day" in _tick(day, datetime(2023, 1, 1, 9, 30, tzinfo=UTC)).skip_message


def test_the_cron_is_the_due_time_in_utc(day):
    schedule = day.definitions.get_repository_def().get_schedule_def("business_audit_daily_schedule")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 9 * * *", "UTC")
