"""The gate in a real Dagster: daemon, webserver, GraphQL, run workers; storage, marker and coalescer are real too.

One Dagster for all of it. `on_time` is a code location whose schedule is to tick within a minute; `later` one whose
days were due at midnight, so that its sensor has them, and late a minute after; `rapid` one whose sensor is evaluated
as often as a daemon can. What somebody is told arrives at a webhook.
"""

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from cdi_dagster.coalescer import coalesce
from cdi_dagster.coalescer.claim import Claim
from cdi_dagster.sensors.coalescer_completion import INTERVAL_SECONDS
from cdi_dagster_tests.clock import clock_at
from cdi_dagster_tests.collections import AUDIT, EQUALITY
from cdi_dagster_tests.gate.real_dagster import ENDED, RECORDS, gate_dagster

pytestmark = [pytest.mark.daemon, pytest.mark.timeout(1800)]
SENSOR = "business_audit_coalescer_completion_sensor"
RAPID_SENSOR = "equality_coalescer_completion_sensor"
SCHEDULE = "equality_daily_schedule"
CLOSED_SCHEDULE = "business_audit_daily_schedule"


@pytest.fixture(scope="module", autouse=True)
def mid_morning():
    """Whatever the hour is: the storage day must not change under a test."""
    with clock_at(datetime.now(UTC).replace(hour=10, minute=0)):
        yield


@pytest.fixture(scope="module")
def yesterday(mid_morning):
    return datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture(scope="module")
def dagster(tmp_path_factory, mid_morning):
    with gate_dagster(tmp_path_factory.mktemp("home")) as running:
        yield running


def test_the_gate_in_a_real_dagster_from_the_tick_to_the_day_that_is_coalesced_again(dagster, yesterday):
    """One story, because everything in it takes turns with the daemon's own clock."""
    on_time, later = dagster.on_time, dagster.later
    missed = [yesterday - timedelta(days=n) for n in range(6, 0, -1)]
    before, not_coalesced, after = backfilled = [yesterday - timedelta(days=n) for n in range(24, 21, -1)]
    overridden = yesterday - timedelta(days=10)
    on_time.coalesced(EQUALITY, yesterday)
    on_time.write(AUDIT, yesterday)
    later.coalesced(AUDIT, *missed, before, after)
    later.write(AUDIT, not_coalesced)
    later.write(AUDIT, overridden)
    later.write(AUDIT, yesterday)

    with Claim(later.corporate, AUDIT.on(yesterday)) as coalescer:
        on_time.start("schedule", SCHEDULE)
        on_time.start("schedule", CLOSED_SCHEDULE)
        due_at = on_time.next_tick(SCHEDULE, CLOSED_SCHEDULE)
        later.start("sensor", SENSOR)
        later.start("sensor", "failed_runs_sensor")

        backfill_id = later.backfill(AUDIT, backfilled)

        # The override of a closed gate works, and is written down.
        config = {"ops": {"corporate_storage__business_audit": {"config": {"override_gate": True}}}}
        forced = dagster.wait_run(later.click(AUDIT, overridden, config=config))
        assert forced.dagster_run.status.value == "SUCCESS"
        assert later.is_published(AUDIT, overridden) == RECORDS
        _assert_override_is_written_down(dagster, forced.dagster_run.run_id)

        # The week that was missed is caught up, oldest first; the day at the coalescer waits, and says for what.
        dagster.wait(lambda: all(later.is_published(AUDIT, day) for day in missed), "the missed week is published")
        begun = [
            min(r.create_timestamp for r in dagster.runs(day) if "cdi/launched_by" in r.dagster_run.tags)
            for day in missed
        ]
        assert begun == sorted(begun)
        waiting = dagster.wait(
            lambda: next((t for t in dagster.ticks(SENSOR) if t.skip_reason), None), "the sensor has a quiet tick"
        )
        assert f"{yesterday}: coalescer RUNNING: coalescer for {yesterday} still running" in waiting.skip_reason
        assert not later.is_published(AUDIT, yesterday)
        # By now it is late: somebody was told, of the gate and of the day's size, and the check is red.
        (late,) = dagster.heard.of("LATE", storage_day=yesterday)
        assert late["failure_class"] == "COALESCER_RUNNING"
        assert "30 records by offsets" in late["text"]
        assert dagster.checks_by_sensor("business_audit/daily_records", "published_on_time")[0] is False

        # A click while the coalescer works fails, and says so. Not before the tick on time: both locations
        # have the same days, and that would find this run at work.
        skipped = dagster.wait(
            lambda: next((tick for tick in dagster.ticks(CLOSED_SCHEDULE) if tick.skip_reason), None),
            "the closed schedule has ticked and launched nothing",
        )
        clicked = later.click(AUDIT, yesterday)
        dagster.wait_run(clicked)  # it does not wait for the coalescer, which goes on
        assert dagster.failure_class(clicked) == "COALESCER_RUNNING"
        coalescer.fail("stopped, so that the real one can have it")

    coalesce(later.corporate, AUDIT.on(yesterday))
    completed = datetime.now(UTC)
    launched = dagster.wait(
        lambda: next((r.dagster_run for r in dagster.runs(yesterday) if _by_sensor(r)), None),
        "the sensor launches the day",
    )
    # Within a minute, where the machine is not busy: the first look after the coalescer's end launches it.
    looks = [datetime.fromtimestamp(tick.timestamp, tz=UTC) for tick in dagster.ticks(SENSOR)]
    assert len([at for at in looks if completed < at <= dagster.asked_for_at(launched.run_id)]) <= 1
    assert INTERVAL_SECONDS <= 30
    # At the same time somebody clicks: still one result.
    second_click = later.click(AUDIT, yesterday)
    dagster.wait(lambda: later.is_published(AUDIT, yesterday), "the day is published")
    dagster.wait_run(second_click)

    # The backfill: two days are published, the one between them says why not.
    dagster.wait(lambda: all(later.is_published(AUDIT, day) for day in (before, after)), "two days are published")
    (closed,) = [r for r in dagster.runs(not_coalesced) if r.dagster_run.tags.get("dagster/backfill") == backfill_id]
    dagster.wait_run(closed.dagster_run.run_id)
    assert dagster.failure_class(closed.dagster_run.run_id) == "COALESCER_NOT_STARTED"
    assert not later.is_published(AUDIT, not_coalesced)

    # A day that is coalesced again is ingested again, once.
    again = missed[-1]
    later.write(AUDIT, again, seed=2, first_offset=1000)
    coalesce(later.corporate, AUDIT.on(again))
    dagster.wait(lambda: later.is_published(AUDIT, again) == 2 * RECORDS, "the day is ingested again")

    # Nothing is late any more, and nobody was woken for a gate that was shut.
    dagster.wait(lambda: dagster.heard.of("LATE_OVER", storage_day=yesterday), "the lateness is over")
    dagster.wait(
        lambda: dagster.checks_by_sensor("business_audit/daily_records", "published_on_time")[0], "the check is green"
    )
    # One message for the missed week, which was being run, and one for the day that waited for its coalescer.
    assert [alert["storage_days"] for alert in dagster.heard.of("LATE")] in (
        [[str(day) for day in missed], [str(yesterday)]],
        [[str(yesterday)], [str(day) for day in missed]],
    )
    dagster.wait(lambda: len(dagster.heard.of("LATE_OVER")) == 2, "the missed week is over, in one message")
    assert dagster.heard.of("FAILED") == []

    # The schedule ticked on time: the open day ran, the closed one says what it waits for.
    dagster.wait(lambda: on_time.is_published(EQUALITY, yesterday), "the tick launches")
    (on_time_run,) = [r for r in dagster.runs(yesterday) if r.dagster_run.job_name == "equality_daily"]
    assert on_time_run.dagster_run.tags["cdi/launched_by"] == "schedule"
    assert dagster.asked_for_at(on_time_run.dagster_run.run_id) >= due_at
    for schedule in (SCHEDULE, CLOSED_SCHEDULE):
        assert [tick.timestamp for tick in dagster.ticks(schedule)] == [due_at.timestamp()]
    assert "coalescer NOT_STARTED" in skipped.skip_reason
    assert "The sensor launches it" in skipped.skip_reason
    assert "30 records by offsets" in skipped.skip_reason

    # After one more tick, nothing was published twice.
    ticks = len(dagster.ticks(SENSOR))
    dagster.wait(lambda: len(dagster.ticks(SENSOR)) > ticks, "one more tick")
    for day in (*missed[:-1], before, after):
        assert len(later.launches(day)) == 1, day
    assert len(set(later.launches(again))) == len(later.launches(again)) == 2
    # The click came before or after the sensor's run had ended: then it is a person who asked for the day again.
    asked_again = 1 if dagster.failure_class(second_click) is None else 0
    assert len(later.launches(yesterday)) == 1 + asked_again
    assert len(on_time.launches(yesterday)) == 1


def test_with_two_daemons_fifty_evaluations_clicks_and_a_backfill_a_day_is_published_once(dagster, yesterday):
    rapid = dagster.rapid
    rapid.write(EQUALITY, yesterday, seed=5)
    with dagster.second_daemon() as second:
        with rapid.holding(yesterday), ThreadPoolExecutor(8) as threads:
            rapid.start("sensor", RAPID_SENSOR)
            dagster.wait(
                lambda: f"{RAPID_SENSOR} skipped" in second.log(), "the second daemon evaluates the sensor too"
            )
            evaluations = [threads.submit(rapid.evaluate, RAPID_SENSOR) for _ in range(15)]
            coalesce(rapid.corporate, EQUALITY.on(yesterday))
            evaluations += [threads.submit(rapid.evaluate, RAPID_SENSOR) for _ in range(35)]
            requested = [request for evaluation in evaluations for request in evaluation.result()]
            dagster.wait(lambda: _of_rapid(dagster, yesterday), "a daemon launches the day")
            for _, tags in requested[:3]:  # as somebody who tests the sensor in the UI and launches what it asks for
                rapid.click(EQUALITY, yesterday, tags=tags)
            rapid.click(EQUALITY, yesterday)
            backfill_id = rapid.backfill_job(EQUALITY, [yesterday])
            dagster.wait(lambda: rapid.launches(yesterday), "one of them is at work")
            # A person's run that begins only after the publication would rightly ingest the day again.
            dagster.wait(lambda: _is_of_backfill(dagster, yesterday, backfill_id), "the backfill has its run")
            # Two daemons may both start it. Then the second worker leaves, and its code server reports the run as
            # failed while it goes on; the sensor waits ten minutes after a failure, though younger runs gave way.
            dagster.wait(lambda: len(_at_work(dagster, yesterday)) <= 1, "all the others give way to it")
            ticks = len(dagster.ticks(RAPID_SENSOR))
            dagster.wait(lambda: len(dagster.ticks(RAPID_SENSOR)) >= ticks + 4, "both daemons look again")
            assert len(rapid.launches(yesterday)) == 1
            second.require_running("The second daemon")
        # Before the second daemon ends: the run that won may be a child of its code server, and would end with it.
        dagster.wait(lambda: rapid.is_published(EQUALITY, yesterday), "the day is published")
        dagster.wait(lambda: not _at_work(dagster, yesterday), "all runs have ended")
        dagster.wait(lambda: "SUCCESS" in _outcomes(dagster, yesterday), "the run that won has ended")
    assert len({key for key, _ in requested}) <= 1, f"{requested}\n{_story(dagster, yesterday)}"
    assert len(rapid.launches(yesterday)) == 1, _story(dagster, yesterday)
    assert rapid.is_published(EQUALITY, yesterday) == RECORDS
    outcomes = _outcomes(dagster, yesterday)
    assert outcomes == {"SUCCESS": 1, "DUPLICATE_RUN": outcomes.total() - 1}
    assert outcomes.total() > len(requested[:3]) + 2  # at least one is a sensor's


def test_the_row_of_a_killed_worker_is_closed_and_a_person_is_alerted_where_nothing_runs_the_day_again(
    dagster, yesterday
):
    later, long_ago = dagster.later, yesterday - timedelta(days=30)
    later.coalesced(AUDIT, long_ago)
    later.start("sensor", "failed_runs_sensor")
    with later.holding(long_ago):
        run_id = later.click(AUDIT, long_ago)
        worker = dagster.wait(lambda: later.worker_of(run_id, long_ago), "the ingestion is at work")
        assert later.rows.get(run_id, "CDI-data:businessAudit").status == "IN_PROGRESS"
        os.kill(worker, signal.SIGKILL)
    (told,) = dagster.wait(lambda: dagster.heard.of("FAILED"), "somebody is told")
    assert (told["failure_class"], told["storage_day"]) == ("WORKER_LOST", str(long_ago))
    assert told["run_url"] == f"{dagster.url}/runs/{run_id}"
    row = later.rows.get(run_id, "CDI-data:businessAudit")
    assert (row.status, row.failure.split(":")[0]) == ("FAILED", "WORKER_LOST")
    assert dagster.failure_class(run_id) == "WORKER_LOST"


def _of_rapid(dagster, day):
    origins = [(record, record.dagster_run.remote_job_origin.repository_origin) for record in dagster.runs(day)]
    return [record for record, origin in origins if origin.code_location_origin.location_name == "rapid"]


def _outcomes(dagster, day):
    runs = [record.dagster_run for record in _of_rapid(dagster, day)]
    return Counter(
        run.status.value if run.is_success else run.tags.get("cdi/failure_class", run.status.value) for run in runs
    )


def _at_work(dagster, day):
    return [record for record in _of_rapid(dagster, day) if record.dagster_run.status.value not in ENDED]


def _story(dagster, day):
    """Return who was at work, and each run of the day: when it was created, began and ended, and why it ended so."""
    runs = [
        f"{record.create_timestamp:%H:%M:%S} {record.start_time} to {record.end_time} {run.run_id} {run.job_name} "
        f"{run.status.value} {run.tags}"
        for record, run in ((record, record.dagster_run) for record in _of_rapid(dagster, day))
    ]
    return "\n".join(["", *dagster.rapid.at_work(day), *runs])


def _is_of_backfill(dagster, day, backfill_id):
    return any(record.dagster_run.tags.get("dagster/backfill") == backfill_id for record in _of_rapid(dagster, day))


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
