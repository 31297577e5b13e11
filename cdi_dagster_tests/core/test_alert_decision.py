"""When an alert is sent for a failed run: the table of the failure classes, run by run."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest

from cdi_dagster.core.alert_decision import UNDECIDED_FOR, AlertAction, decide_alert
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.failures import FailureClass
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.launch_decision import DayFacts, PastRun, PublishedFrom, RunState, launch_of
from cdi_dagster.sensors.failed_runs import LOOKS_BACK

DAY = date(2023, 3, 26)
NOW = datetime(2023, 3, 27, 12, tzinfo=UTC)
LONG_AFTER = datetime(2023, 6, 1, 12, tzinfo=UTC)
OPEN = CoalescerStatus(state=CoalescerState.COMPLETE, reason="done", fingerprint="f1")

ALERTED_RUNS = {
    "COALESCER_RUNNING": set(),
    "COALESCER_NOT_STARTED": set(),
    "COALESCER_FAILED": set(),
    "COALESCER_UNKNOWN": set(),
    "INPUT_CHANGED": {2, 3},
    "OFFSETS_LOST": {1, 2, 3},
    "INPUT_INVALID": {1, 2, 3},
    "LAUNCH_FAILED": {3},
    "BOOTSTRAP_FAILED": {1, 3},
    "OUT_OF_MEMORY": {1, 3},
    "CLUSTER_LOST": {3},
    "DKS_UNAVAILABLE": {3},
    "DKS_FORBIDDEN": {1, 2, 3},
    "RECORDS_REJECTED": {1, 2, 3},
    "COUNTS_DO_NOT_RECONCILE": {1, 2, 3},
    "DUPLICATE_RUN": set(),
    "STORAGE_UNAVAILABLE": {3},
    "STORAGE_FULL": {1, 2, 3},
    "WORKER_LOST": {3},
    "INTERRUPTED": {3},
    "TABLES_MISSING": {3},
    "WEBSERVER_UNAVAILABLE": set(),
    "JOB_FAILED": {1, 2, 3},
}


def failed(number, failure, *, by_person=False, state=RunState.FAILED, hours_ago=1 / 6):
    return PastRun(
        run_id=f"r{number}",
        state=state,
        launch=launch_of(DAY, OPEN),
        failure_class=FailureClass(failure) if failure else None,
        ended_at=NOW - timedelta(hours=hours_ago),
        by_person=by_person,
    )


def automation():
    return Automation(
        calendar=DayCalendar(
            first_storage_day=date(2023, 1, 1), due_time=time(9, 30), late_time=time(12), look_back_days=7
        )
    )


def decided(run_id, failure, *runs, automated=True, published_from=None, coalescer=OPEN, **facts):
    facts = DayFacts(storage_day=DAY, coalescer=coalescer, published_from=published_from, runs=runs, **facts)
    return decide_alert(run_id, FailureClass(failure), facts, NOW if automated else LONG_AFTER, automation())


@pytest.mark.parametrize("failure", FailureClass)
def test_each_class_is_alerted_when_the_table_says(failure):
    runs = [failed(number, failure) for number in (1, 2, 3)]
    alerted = {n for n in (1, 2, 3) if decided(f"r{n}", failure, *runs[:n]).action is AlertAction.ALERT}
    assert alerted == ALERTED_RUNS[failure]


def test_what_is_tried_again_says_when_and_what_is_not_says_why():
    first = decided("r1", "CLUSTER_LOST", failed(1, "CLUSTER_LOST"))
    assert first.what_happens == "the day is run again now"
    second = decided("r2", "CLUSTER_LOST", failed(1, "CLUSTER_LOST"), failed(2, "CLUSTER_LOST"))
    assert second.what_happens == "run r2 failed with CLUSTER_LOST: next attempt from 12:10 UTC"
    third = decided("r3", "CLUSTER_LOST", *(failed(n, "CLUSTER_LOST") for n in (1, 2, 3)))
    assert third.what_happens.startswith("nothing: 3 runs, the last (r3) failed (CLUSTER_LOST)")


def test_where_automation_does_not_look_the_first_failure_is_alerted():
    decision = decided("r1", "CLUSTER_LOST", failed(1, "CLUSTER_LOST"), automated=False)
    assert decision.action is AlertAction.ALERT
    assert decision.what_happens == (
        "nothing: automation launches storage days from 2023-05-25 on; materialise this one when the cause is fixed"
    )
    closed = decided("r1", "COALESCER_RUNNING", failed(1, "COALESCER_RUNNING"), automated=False)
    assert closed.action is AlertAction.STAY_QUIET
    assert closed.what_happens.startswith("nothing: automation launches storage days from 2023-05-25 on")


PUBLISHED = PublishedFrom(fingerprint="f1", published_at=NOW - timedelta(hours=1))


def of_tables(number, failure, **options):
    return replace(failed(number, failure, **options), publishes_records=False)


def test_tables_that_fail_after_their_records_are_published_are_retried_and_alerted_when_that_is_used_up():
    runs = [failed(1, "CLUSTER_LOST"), of_tables(2, "CLUSTER_LOST"), of_tables(3, "CLUSTER_LOST")]
    without = {"published_from": PUBLISHED, "missing_tables": ("raw",)}
    first = decided("r1", "CLUSTER_LOST", *runs[:1], **without)
    assert (first.action, first.what_happens) == (AlertAction.STAY_QUIET, "the tables alone are run again now")
    second = decided("r2", "CLUSTER_LOST", *runs[:2], **without)
    assert second.action is AlertAction.STAY_QUIET
    assert "next attempt from 12:10 UTC" in second.what_happens
    third = decided("r3", "CLUSTER_LOST", *runs, **without)
    assert third.action is AlertAction.ALERT
    assert third.what_happens == (
        "nothing: TABLES_MISSING: records are published, tables (raw) are not: 3 runs, the last (r3) failed "
        "(CLUSTER_LOST): fix it, then materialise it"
    )


def test_a_defect_in_the_tables_is_alerted_at_once_and_says_what_is_missing():
    decision = decided("r1", "JOB_FAILED", failed(1, "JOB_FAILED"), published_from=PUBLISHED, missing_tables=("raw",))
    assert decision.action is AlertAction.ALERT
    assert decision.what_happens.startswith("nothing: TABLES_MISSING: records are published, tables (raw) are not")


def test_a_run_that_fails_though_records_and_tables_are_there_is_alerted_for_nothing_runs_it_again():
    for runs in ((failed(1, "CLUSTER_LOST"),), ()):
        decision = decided("r1", "CLUSTER_LOST", *runs, published_from=PUBLISHED)
        assert (decision.action, decision.what_happens) == (AlertAction.ALERT, "nothing: published")


def test_tables_that_succeed_alone_end_the_failure_of_their_day_and_not_that_of_its_records():
    runs = (failed(1, "JOB_FAILED"), of_tables(2, None, state=RunState.SUCCEEDED))
    decision = decided("r1", "JOB_FAILED", *runs, published_from=PUBLISHED)
    assert (decision.action, decision.what_happens) == (
        AlertAction.STAY_QUIET,
        "run r2 of the day has succeeded since",
    )
    # A person published the tables of the earlier records again; those of this coalescing are still not there.
    earlier = PublishedFrom(fingerprint="f0", published_at=NOW - timedelta(days=1))
    assert decided("r1", "JOB_FAILED", *runs, published_from=earlier).action is AlertAction.ALERT


def test_records_that_succeed_alone_do_not_end_the_failure_of_the_tables():
    runs = (failed(1, "JOB_FAILED"), replace(failed(2, None, state=RunState.SUCCEEDED), publishes_tables=False))
    without = {"published_from": PUBLISHED, "missing_tables": ("raw",)}
    assert decided("r1", "JOB_FAILED", *runs, **without).action is AlertAction.ALERT


@pytest.mark.parametrize("failure", FailureClass)
def test_nobody_is_told_of_a_day_that_has_succeeded_since(failure):
    runs = (failed(1, failure), failed(2, None, state=RunState.SUCCEEDED))
    assert (
        decided("r1", failure, *runs, published_from=PublishedFrom(fingerprint="f1")).action is AlertAction.STAY_QUIET
    )


def test_a_failure_that_waits_for_the_coalescer_is_left_to_automation():
    closed = CoalescerStatus(state=CoalescerState.RUNNING, reason="job abc")
    decision = decided("r1", "INPUT_CHANGED", failed(1, "INPUT_CHANGED"), coalescer=closed)
    assert (decision.action, decision.what_happens) == (AlertAction.STAY_QUIET, "coalescer RUNNING: job abc")


@pytest.mark.parametrize("failure", ["CLUSTER_LOST", "OUT_OF_MEMORY"])
def test_a_published_day_whose_attempts_may_be_used_up_is_looked_at_again_when_the_gate_is_open(failure):
    closed = CoalescerStatus(state=CoalescerState.UNKNOWN, reason="no answer")
    runs = [failed(number, failure) for number in (1, 2, 3)]
    stale = {"published_from": PublishedFrom(fingerprint="f0", published_at=NOW - timedelta(days=1))}
    waits = decided("r3", failure, *runs, coalescer=closed, **stale)
    assert (waits.action, waits.what_happens) == (
        AlertAction.RETRY_LATER,
        "published; since then coalescer UNKNOWN: no answer",
    )
    assert decided("r3", failure, *runs, **stale).action is AlertAction.ALERT
    # Not for ever: later nobody looks at the run again.
    assert UNDECIDED_FOR < LOOKS_BACK
    long_ago = [failed(number, failure, hours_ago=21) for number in (1, 2, 3)]
    assert decided("r3", failure, *long_ago, coalescer=closed, **stale).action is AlertAction.ALERT
    # The first is followed by another; and a day that is not published is late, and reported as that.
    first = decided("r1", "CLUSTER_LOST", failed(1, "CLUSTER_LOST"), coalescer=closed, **stale)
    assert first.action is AlertAction.STAY_QUIET
    assert decided("r3", failure, *runs, coalescer=closed).action is AlertAction.STAY_QUIET


def test_what_cannot_be_read_delays_only_what_can_wait():
    assert decided("r1", "CLUSTER_LOST", unreadable="no answer").action is AlertAction.RETRY_LATER
    long_ago = failed(1, "CLUSTER_LOST", hours_ago=21)
    assert decided("r1", "CLUSTER_LOST", long_ago, unreadable="no answer").action is AlertAction.ALERT
    assert decided("r1", "JOB_FAILED", failed(1, "JOB_FAILED"), unreadable="no answer").action is AlertAction.ALERT
