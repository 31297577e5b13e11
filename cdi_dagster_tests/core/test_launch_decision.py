"""When a day is launched, waits, is done, or is left to a person: the truth table, and the two slices of time."""

from datetime import UTC, date, datetime, timedelta

import pytest

from cdi_dagster.core.failures import FailureClass
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.launch_decision import (
    DayFacts,
    LaunchAction,
    PastRun,
    PublishedFrom,
    RunState,
    decide,
    launch_of,
)

DAY = date(2023, 3, 26)
NOW = datetime(2023, 3, 27, 12, tzinfo=UTC)
COMPLETE = CoalescerStatus(state=CoalescerState.COMPLETE, reason="completed at 08:11 UTC", fingerprint="f1")
LAUNCH = launch_of(DAY, COMPLETE)
PUBLISHED = PublishedFrom(fingerprint="f1")
OLDER = PublishedFrom(fingerprint="f0")


def _run(state, failure_class=None, *, launch=LAUNCH, minutes_ago=60.0):
    return PastRun(
        run_id="r1",
        state=state,
        launch=launch,
        failure_class=failure_class,
        ended_at=NOW - timedelta(minutes=minutes_ago),
    )


LIVE = _run(RunState.LIVE)
SUCCEEDED = _run(RunState.SUCCEEDED)
LOST = _run(RunState.FAILED)
INTERRUPTED = _run(RunState.FAILED, FailureClass.INTERRUPTED, minutes_ago=0)
DKS_DOWN = _run(RunState.FAILED, FailureClass.DKS_UNAVAILABLE)


@pytest.mark.parametrize(
    ("coalescer", "published_from", "runs", "action", "says"),
    [
        (COMPLETE, None, (), LaunchAction.LAUNCH, "completed at 08:11"),
        (COMPLETE, PUBLISHED, (), LaunchAction.DONE, "published"),
        (COMPLETE, OLDER, (), LaunchAction.LAUNCH, "coalesced again"),
        (COMPLETE, OLDER, (_run(RunState.SUCCEEDED, launch=f"{DAY}|f0"),), LaunchAction.LAUNCH, "coalesced again"),
        # The run pinned more than the coalescer left (late data): its fingerprint is another, and it is done.
        (COMPLETE, OLDER, (SUCCEEDED,), LaunchAction.DONE, "published by run r1"),
        (COMPLETE, None, (SUCCEEDED,), LaunchAction.LAUNCH, ""),
        (COMPLETE, None, (LIVE,), LaunchAction.WAIT, "run r1 is running"),
        (COMPLETE, OLDER, (LIVE,), LaunchAction.WAIT, "run r1 is running"),
        (COMPLETE, None, (LOST,), LaunchAction.LAUNCH, ""),
        (COMPLETE, None, (DKS_DOWN,), LaunchAction.LAUNCH, ""),
        (COMPLETE, None, (_run(RunState.FAILED, minutes_ago=1),), LaunchAction.WAIT, "next attempt from 12:09 UTC"),
        (COMPLETE, None, (INTERRUPTED, INTERRUPTED), LaunchAction.LAUNCH, "again: run r1 failed with INTERRUPTED"),
        (
            COMPLETE,
            None,
            (INTERRUPTED, LOST, INTERRUPTED),
            LaunchAction.LEAVE,
            "3 runs, the last (r1) failed (INTERRUPTED)",
        ),
        (COMPLETE, PUBLISHED, (INTERRUPTED,), LaunchAction.DONE, "published"),
        (COMPLETE, None, (LOST, LOST, LOST), LaunchAction.LEAVE, "3 runs, the last (r1) failed (a lost worker)"),
        (COMPLETE, None, (_run(RunState.FAILED, FailureClass.RECORDS_REJECTED),), LaunchAction.LEAVE, "does not fix"),
        (COMPLETE, None, (_run(RunState.FAILED, FailureClass.COALESCER_RUNNING),), LaunchAction.LAUNCH, ""),
        (COMPLETE, None, (_run(RunState.CANCELED),), LaunchAction.LEAVE, "was terminated"),
        (COMPLETE, None, (_run(RunState.FAILED, FailureClass.JOB_FAILED, launch="other"),), LaunchAction.LAUNCH, ""),
    ],
)
def test_an_open_day_is_launched_once_for_what_the_coalescer_left(coalescer, published_from, runs, action, says):
    decision = decide(DayFacts(storage_day=DAY, coalescer=coalescer, published_from=published_from, runs=runs), NOW)
    assert decision.action == action
    assert says in decision.reason


@pytest.mark.parametrize("state", [state for state in CoalescerState if state is not CoalescerState.COMPLETE])
@pytest.mark.parametrize("published_from", [None, OLDER, PUBLISHED])
@pytest.mark.parametrize("runs", [(), (LOST,), (SUCCEEDED,)])
def test_a_closed_gate_waits_whatever_else_is_so_and_says_why(state, published_from, runs):
    closed = CoalescerStatus(state=state, reason="job abc, 42 min")
    decision = decide(DayFacts(storage_day=DAY, coalescer=closed, published_from=published_from, runs=runs), NOW)
    assert decision.action == LaunchAction.WAIT
    assert "job abc, 42 min" in decision.reason


def test_a_day_that_could_not_be_read_waits():
    facts = DayFacts(storage_day=DAY, coalescer=COMPLETE, published_from=None, runs=(), unreadable="no permission")
    assert decide(facts, NOW).action == LaunchAction.WAIT


@pytest.mark.parametrize(
    ("completed_at", "published_at", "action"),
    [
        (NOW - timedelta(hours=3), NOW - timedelta(hours=2), LaunchAction.DONE),
        (NOW - timedelta(hours=2), NOW - timedelta(hours=3), LaunchAction.LAUNCH),
        (NOW - timedelta(hours=2), None, LaunchAction.LAUNCH),
        (None, None, LaunchAction.DONE),
    ],
)
def test_a_source_without_fingerprints_goes_by_times(completed_at, published_at, action):
    coalescer = CoalescerStatus(state=CoalescerState.COMPLETE, reason="done", completed_at=completed_at)
    published = PublishedFrom(fingerprint="f1", published_at=published_at)
    facts = DayFacts(storage_day=DAY, coalescer=coalescer, published_from=published, runs=())
    assert decide(facts, NOW).action == action


def test_every_attempt_has_a_run_key_of_its_own():
    keys = [
        decide(DayFacts(storage_day=DAY, coalescer=COMPLETE, published_from=None, runs=(LOST,) * n), NOW).run_key
        for n in range(3)
    ]
    assert keys == [f"{DAY}|f1|1", f"{DAY}|f1|2", f"{DAY}|f1|3"]
