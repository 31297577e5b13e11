"""The gate by a quiet listing, whole: two looks at real storage by the sensor, and the run that asks again."""

import os
from datetime import UTC, datetime, timedelta

import dagster as dg
from freezegun import freeze_time

from cdi_dagster.resources.coalescer import CoalescerStatusResource
from cdi_dagster_tests.dagster_day import DAY, failure_of
from cdi_dagster_tests.gate.instigators import RECORDS, launched, publish_mark, run_as, sensor_tick

MORNING = datetime(2023, 3, 27, 9, 45, tzinfo=UTC)


def _put(day, offsets, at):
    key = day.put_object(offsets)
    os.utime(day.settings.home / "corporate" / key, (at.timestamp(), at.timestamp()))


def _as_in_a_new_process(day):
    """Make the source anew: what it remembers lies on storage."""
    source = CoalescerStatusResource(
        source="quiet",
        corporate_root=day.settings.corporate_root,
        published_root=day.settings.published_root,
        quiet_seconds=1800,
    )
    day.status = source.create_resource(dg.build_init_resource_context())
    day.use()


def _tick(day, minutes):
    _as_in_a_new_process(day)
    return sensor_tick(day, MORNING + timedelta(minutes=minutes))


def test_a_day_is_launched_when_two_looks_saw_the_same_for_long_enough_and_again_when_late_data_came(day):
    for n in range(1, 7):
        publish_mark(day, DAY - timedelta(days=n))
    _put(day, "0_9", at=MORNING - timedelta(hours=5))
    first = _tick(day, 0)
    assert "has been quiet for 0 s of the 30 min that make it complete (1 objects" in first.skip_message
    _put(day, "10_19", at=MORNING + timedelta(minutes=20))
    assert "been quiet for 0 s of the 30 min" in _tick(day, 29).skip_message
    assert "been quiet for 29 min of the 30 min" in _tick(day, 58).skip_message
    with freeze_time(MORNING + timedelta(minutes=58)):
        assert failure_of(day.run(*RECORDS))["failure_class"] == "COALESCER_RUNNING"
    (request,) = _tick(day, 60).run_requests
    with freeze_time(MORNING + timedelta(minutes=60)):
        assert run_as(day, request).success
    assert launched(_tick(day, 61)) == []

    _put(day, "20_29", at=MORNING + timedelta(minutes=100))
    assert "published; since then coalescer RUNNING" in _tick(day, 101).skip_message
    (again,) = _tick(day, 132).run_requests
    with freeze_time(MORNING + timedelta(minutes=132)):
        assert run_as(day, again).success
    assert launched(_tick(day, 133)) == []
