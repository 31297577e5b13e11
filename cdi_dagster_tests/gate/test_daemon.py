"""The gate in a real Dagster: daemon, webserver, GraphQL, run workers; storage, marker and coalescer are real too.

One Dagster for all of it. `on_time` is a code location whose schedule ticks within two minutes; `later` one whose
days were due at midnight, so that its sensor has them.
"""

import time
from datetime import UTC, datetime, timedelta

import pytest

from cdi_dagster.coalescer import coalesce
from cdi_dagster.coalescer.marker import Claim
from cdi_dagster.core.collections import REGISTRY
from cdi_dagster_tests.gate.real_dagster import RECORDS, gate_dagster, next_due_time, until

pytestmark = [pytest.mark.daemon, pytest.mark.timeout(600)]
AUDIT, EQUALITY = REGISTRY[0], REGISTRY[1]
SENSOR = "business_audit_coalescer_completion_sensor"
SCHEDULE = "equality_daily_schedule"
CLOSED_SCHEDULE = "business_audit_daily_schedule"


@pytest.fixture(scope="module")
def due_at():
    due = next_due_time()
    if due.hour == 23 and due.minute > 50 or due.hour == 0:
        pytest.skip("the storage day would change under the test: run it away from midnight UTC")
    return due


@pytest.fixture(scope="module")
def yesterday():
    return datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture(scope="module")
def dagster(tmp_path_factory, due_at):
    with gate_dagster(tmp_path_factory.mktemp("home"), due_at) as running:
        yield running


def test_the_gate_in_a_real_dagster_from_the_tick_to_the_day_that_is_coalesced_again(dagster, yesterday, due_at):
    """One story, because everything in it takes turns with the daemon's own clock."""
    on_time, later = dagster.on_time, dagster.later
    missed = [yesterday - timedelta(days=n) for n in range(6, 0, -1)]
    backfilled = [yesterday - timedelta(days=n) for n in range(24, 19, -1)]
    overridden = yesterday - timedelta(days=10)
    on_time.coalesced(EQUALITY, yesterday)
    on_time.write(AUDIT, yesterday)
    later.coalesced(AUDIT, *missed)
    later.coalesced(AUDIT, *backfilled[:2], *backfilled[3:])
    later.write(AUDIT, backfilled[2])
    later.write(AUDIT, overridden)
    later.write(AUDIT, yesterday)

    with Claim(later.corporate, AUDIT, yesterday) as coalescer:
        on_time.start("schedule", SCHEDULE)
        on_time.start("schedule", CLOSED_SCHEDULE)
        later.start("sensor", SENSOR)

        # A click while the coalescer works fails in seconds, and says so.
        clicked = later.click(AUDIT, yesterday)
        record = dagster.wait_run(clicked)
        assert dagster.failure_class(clicked) == "COALESCER_RUNNING"
        assert record.end_time - record.start_time < 30
        backfill_id = later.backfill(AUDIT, backfilled)

        # ... and the override works, and is written down.
        config = {"ops": {"corporate_storage__business_audit": {"config": {"override_gate": True}}}}
        forced = dagster.wait_run(later.click(AUDIT, overridden, config=config))
        assert forced.dagster_run.status.value == "SUCCESS"
        assert later.is_published(AUDIT, overridden) == RECORDS
        _assert_override_is_written_down(dagster, forced.dagster_run.run_id)

        # The week that was missed is caught up, oldest first; the day at the coalescer waits, and says for what.
        until(lambda: all(later.is_published(AUDIT, day) for day in missed), 240, "the missed week is published")
        begun = [
            min(r.create_timestamp for r in dagster.runs(day) if "cdi/launched_by" in r.dagster_run.tags)
            for day in missed
        ]
        assert begun == sorted(begun)
        waiting = until(
            lambda: next((t for t in dagster.ticks(SENSOR) if t.skip_reason), None), 120, "the sensor has a quiet tick"
        )
        assert f"{yesterday}: coalescer RUNNING: coalescer for {yesterday} still running" in waiting.skip_reason
        assert not later.is_published(AUDIT, yesterday)
        coalescer.fail("stopped, so that the real one can have it")

    coalesce(later.corporate, AUDIT, yesterday)
    completed = time.monotonic()
    until(lambda: any(_by_sensor(r) for r in dagster.runs(yesterday)), 90, "the sensor launches the day")
    assert time.monotonic() - completed < 60
    # At the same time somebody clicks: still one result.
    second_click = later.click(AUDIT, yesterday)
    until(lambda: later.is_published(AUDIT, yesterday), 120, "the day is published")
    dagster.wait_run(second_click)

    # The backfill: four are published, the fifth says why not.
    until(lambda: all(later.is_published(AUDIT, day) for day in (*backfilled[:2], *backfilled[3:])), 180, "four days")
    (closed,) = [r for r in dagster.runs(backfilled[2]) if r.dagster_run.tags.get("dagster/backfill") == backfill_id]
    dagster.wait_run(closed.dagster_run.run_id)
    assert dagster.failure_class(closed.dagster_run.run_id) == "COALESCER_NOT_STARTED"
    assert not later.is_published(AUDIT, backfilled[2])

    # A day that is coalesced again is ingested again, once.
    again = missed[-1]
    later.write(AUDIT, again, seed=2, first_offset=1000)
    coalesce(later.corporate, AUDIT, again)
    until(lambda: later.is_published(AUDIT, again) == 2 * RECORDS, 150, "the day is ingested again")

    # The schedule ticked on time: the open day ran, the closed one says what it waits for.
    until(lambda: datetime.now(UTC) > due_at and on_time.is_published(EQUALITY, yesterday), 240, "the tick launches")
    (on_time_run,) = [r for r in dagster.runs(yesterday) if r.dagster_run.job_name == "equality_daily"]
    assert on_time_run.dagster_run.tags["cdi/launched_by"] == "schedule"
    assert 0 <= on_time_run.create_timestamp.timestamp() - due_at.timestamp() < 60
    skipped = until(lambda: dagster.ticks(CLOSED_SCHEDULE), 30, "the closed schedule has ticked")[0]
    assert "coalescer NOT_STARTED" in skipped.skip_reason
    assert "The sensor launches it" in skipped.skip_reason
    assert "30 records by offsets" in skipped.skip_reason

    # After one more tick, nothing was published twice.
    ticks = len(dagster.ticks(SENSOR))
    until(lambda: len(dagster.ticks(SENSOR)) > ticks, 90, "one more tick")
    for day in (*missed[:-1], *backfilled[:2], *backfilled[3:]):
        assert len(later.launches(day)) == 1, day
    assert len(set(later.launches(again))) == len(later.launches(again)) == 2
    # The click came before or after the sensor's run had ended: then it is a person who asked for the day again.
    asked_again = 1 if dagster.failure_class(second_click) is None else 0
    assert len(later.launches(yesterday)) == 1 + asked_again
    assert len(on_time.launches(yesterday)) == 1


def _by_sensor(record):
    return record.dagster_run.tags.get("cdi/launched_by") == "sensor"


def _assert_override_is_written_down(dagster, run_id):
    events = dagster.instance.all_logs(run_id)
    materialized = [
        e.dagster_event.step_materialization_data.materialization
        for e in events
        if e.dagster_event and e.dagster_event.is_step_materialization
    ]
    assert len(materialized) == 2
    for materialization in materialized:
        assert materialization.metadata["gate_overridden"].value is True
        assert materialization.metadata["gate_was"].value.startswith("NOT_STARTED: ")
