"""When a day is launched, waits, is done, or is left to a person: the truth table, and the two slices of time."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.launch_decision import (
    MAX_ATTEMPTS,
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
    ("runs", "action"), [((), LaunchAction.LEAVE), ((LOST,), LaunchAction.LEAVE), ((LIVE,), LaunchAction.WAIT)]
)
def test_a_day_whose_mark_is_damaged_is_left_to_a_person_and_is_not_published(runs, action):
    error = CdiError(FailureClass.INPUT_INVALID, "The mark cannot be read.", next_step="Run it again.")
    facts = DayFacts(storage_day=DAY, coalescer=COMPLETE, published_from=None, runs=runs, damaged=error)
    decision = decide(facts, NOW)
    assert decision.action is action
    assert ("The mark cannot be read. Next: Run it again." in decision.reason) == (action is LaunchAction.LEAVE)
    assert facts.is_unpublished


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


MISSING = ("raw", "managed")
RECORDS_AT = NOW - timedelta(hours=2)
WITHOUT_TABLES = PublishedFrom(fingerprint="f1", published_at=RECORDS_AT, run_id="r0")


def _tables_run(state, failure_class=None, *, by_person=False, minutes_ago=60.0, records=False, tables=True):
    ended_at = None if state is RunState.LIVE else NOW - timedelta(minutes=minutes_ago)
    return PastRun(
        run_id="r1",
        state=state,
        launch=None if by_person else LAUNCH,
        failure_class=failure_class,
        ended_at=ended_at,
        by_person=by_person,
        publishes_records=records,
        publishes_tables=tables,
    )


def _whole_run(state, failure_class=None, **options):
    return _tables_run(state, failure_class, records=True, **options)


KILLED = _tables_run(RunState.FAILED, FailureClass.CLUSTER_LOST)
AFTER_RECORDS = _whole_run(RunState.FAILED, FailureClass.CLUSTER_LOST)
BEFORE_RECORDS = _whole_run(RunState.FAILED, FailureClass.CLUSTER_LOST, minutes_ago=180)
BY_PERSON = _tables_run(RunState.FAILED, FailureClass.CLUSTER_LOST, by_person=True)
DEFECT = _tables_run(RunState.FAILED, FailureClass.JOB_FAILED)


@pytest.mark.parametrize(
    ("runs", "action", "says"),
    [
        # Published by a terminal, by another installation, or by a run of records alone.
        ((), LaunchAction.LAUNCH, "tables (raw, managed) are not"),
        ((_whole_run(RunState.SUCCEEDED, tables=False),), LaunchAction.LAUNCH, "tables (raw, managed) are not"),
        # The day's run published the records and failed with the tables: its first attempt at them.
        ((AFTER_RECORDS,), LaunchAction.LAUNCH, "run r1 failed with CLUSTER_LOST"),
        ((AFTER_RECORDS, KILLED), LaunchAction.LAUNCH, "run r1 failed with CLUSTER_LOST"),
        ((AFTER_RECORDS, KILLED, KILLED), LaunchAction.LEAVE, "3 runs, the last (r1) failed (CLUSTER_LOST)"),
        # What it took to publish the records is not counted.
        ((BEFORE_RECORDS, BEFORE_RECORDS, AFTER_RECORDS), LaunchAction.LAUNCH, "run r1 failed with CLUSTER_LOST"),
        ((_whole_run(RunState.FAILED, minutes_ago=1),), LaunchAction.WAIT, "next attempt from 12:09 UTC"),
        ((_whole_run(RunState.FAILED, FailureClass.INTERRUPTED, minutes_ago=0),), LaunchAction.LAUNCH, "INTERRUPTED"),
        ((AFTER_RECORDS, DEFECT), LaunchAction.LEAVE, "which a re-run does not fix"),
        ((_whole_run(RunState.CANCELED),), LaunchAction.LEAVE, "run r1 was terminated: materialise it by hand"),
        ((AFTER_RECORDS, _tables_run(RunState.CANCELED)), LaunchAction.LEAVE, "run r1 was terminated"),
        # A person who requests the tables, or the day, gives the attempts back.
        ((AFTER_RECORDS, KILLED, KILLED, BY_PERSON), LaunchAction.LAUNCH, "run r1 failed with CLUSTER_LOST"),
        ((AFTER_RECORDS, DEFECT, BY_PERSON), LaunchAction.LAUNCH, "run r1 failed with CLUSTER_LOST"),
        ((AFTER_RECORDS, _tables_run(RunState.LIVE)), LaunchAction.WAIT, "are not; run r1 is running"),
        ((_tables_run(RunState.FAILED, FailureClass.DUPLICATE_RUN),), LaunchAction.LAUNCH, "DUPLICATE_RUN"),
    ],
)
def test_missing_tables_are_launched_alone_within_the_same_budgets(runs, action, says):
    facts = DayFacts(
        storage_day=DAY, coalescer=COMPLETE, published_from=WITHOUT_TABLES, missing_tables=MISSING, runs=runs
    )
    decision = decide(facts, NOW)
    assert decision.action == action
    assert says in decision.reason
    assert decision.reason.startswith("TABLES_MISSING: records are published, tables (raw, managed) are not")
    assert decision.tables_only == (action is LaunchAction.LAUNCH)
    assert facts.is_unpublished


@pytest.mark.parametrize("runs", [(), (AFTER_RECORDS,), (AFTER_RECORDS, KILLED)])
def test_a_day_is_done_when_its_tables_show_it_however_its_runs_ended(runs):
    facts = DayFacts(storage_day=DAY, coalescer=COMPLETE, published_from=WITHOUT_TABLES, runs=runs)
    assert decide(facts, NOW).action == LaunchAction.DONE
    assert not facts.is_unpublished


def test_records_that_are_outdated_come_before_tables_that_are_missing():
    older = PublishedFrom(fingerprint="f0", published_at=RECORDS_AT)
    facts = DayFacts(
        storage_day=DAY, coalescer=COMPLETE, published_from=older, missing_tables=MISSING, runs=(BY_PERSON,)
    )
    decision = decide(facts, NOW)
    assert (decision.action, decision.tables_only) == (LaunchAction.LAUNCH, False)
    assert "coalesced again" in decision.reason


def test_a_late_object_that_the_failed_run_read_too_is_not_read_again():
    """The records are of more than the coalescer left; the run that published them failed with the tables."""
    late = PublishedFrom(fingerprint="f1 and a late object", published_at=RECORDS_AT, run_id="r1")
    facts = DayFacts(
        storage_day=DAY, coalescer=COMPLETE, published_from=late, missing_tables=MISSING, runs=(AFTER_RECORDS,)
    )
    assert decide(facts, NOW).tables_only


@pytest.mark.parametrize("state", [state for state in CoalescerState if state is not CoalescerState.COMPLETE])
def test_missing_tables_wait_for_a_closed_gate_too(state):
    closed = CoalescerStatus(state=state, reason="job abc, 42 min")
    facts = DayFacts(storage_day=DAY, coalescer=closed, published_from=WITHOUT_TABLES, missing_tables=MISSING, runs=())
    decision = decide(facts, NOW)
    assert decision.action == LaunchAction.WAIT
    assert decision.reason == (
        "TABLES_MISSING: records are published, tables (raw, managed) are not; since then coalescer "
        f"{state}: job abc, 42 min"
    )


def test_runs_of_tables_alone_use_up_no_attempt_of_the_records():
    facts = DayFacts(storage_day=DAY, coalescer=COMPLETE, published_from=None, runs=(KILLED, KILLED, KILLED))
    decision = decide(facts, NOW)
    assert (decision.action, decision.tables_only, decision.attempt) == (LaunchAction.LAUNCH, False, 4)


RETRIED = [None, FailureClass.CLUSTER_LOST, FailureClass.WORKER_LOST, FailureClass.INTERRUPTED]
FINAL = [FailureClass.JOB_FAILED, FailureClass.COUNTS_DO_NOT_RECONCILE]


@given(
    outcomes=st.lists(
        st.tuples(st.sampled_from(["records", "tables", "whole"]), st.sampled_from(RETRIED + FINAL)), max_size=8
    )
)
def test_however_runs_end_records_are_read_once_and_attempts_at_each_part_are_bounded(outcomes):
    """Each outcome is how far the next run gets, and why it fails where that is not to the end."""
    now, runs, published, whole = NOW, [], None, False
    read, launched_tables = 0, 0
    for reached, failure in [*outcomes, *[("records", None)] * 8]:
        now += timedelta(hours=2)
        missing = () if whole or not published else MISSING
        facts = DayFacts(
            storage_day=DAY, coalescer=COMPLETE, published_from=published, missing_tables=missing, runs=tuple(runs)
        )
        decision = decide(facts, now)
        assert (decision.action is LaunchAction.DONE) == whole
        if decision.action is not LaunchAction.LAUNCH:
            break
        assert decision.tables_only == (published is not None)
        launched_tables += decision.tables_only
        if not decision.tables_only and reached != "records":
            read += 1
            published = PublishedFrom(fingerprint="f1", published_at=now + timedelta(minutes=1), run_id=f"r{len(runs)}")
        whole = reached == "whole" and published is not None
        runs.append(
            PastRun(
                run_id=f"r{len(runs)}",
                state=RunState.SUCCEEDED if whole else RunState.FAILED,
                launch=decision.launch,
                failure_class=None if whole else failure,
                ended_at=now + timedelta(minutes=2),
                publishes_records=not decision.tables_only,
            )
        )
    assert decision.action in (LaunchAction.DONE, LaunchAction.LEAVE)
    assert read <= 1
    assert launched_tables <= MAX_ATTEMPTS - 1
    assert len(runs) <= 2 * MAX_ATTEMPTS - 1
    if any(failure in FINAL for run in runs if (failure := run.failure_class)):
        assert runs[-1].failure_class in FINAL


NOT_STARTED = CoalescerStatus(state=CoalescerState.NOT_STARTED, reason="5 objects wait", run_coalesces=True)
CHANGED = _run(RunState.FAILED, FailureClass.INPUT_CHANGED, launch="of another listing")
COULD_NOT_COALESCE = _run(RunState.FAILED, FailureClass.COALESCER_FAILED, launch=launch_of(DAY, NOT_STARTED))


@pytest.mark.parametrize(
    ("published_from", "runs", "action", "reason"),
    [
        (None, (), LaunchAction.LAUNCH, "the run coalesces it: 5 objects wait"),
        (PUBLISHED, (SUCCEEDED,), LaunchAction.LAUNCH, "published; since then the run coalesces it"),
        (None, (LIVE,), LaunchAction.WAIT, "run r1 is running"),
        (None, (COULD_NOT_COALESCE,), LaunchAction.LAUNCH, "the run coalesces it"),
        (None, (COULD_NOT_COALESCE,) * 10, LaunchAction.LEAVE, "10 runs could not coalesce it, the last is r1"),
        (None, (CHANGED,) * 3, LaunchAction.LEAVE, "the input of 3 runs changed under them"),
    ],
)
def test_where_runs_coalesce_a_day_that_nobody_coalesced_is_launched(published_from, runs, action, reason):
    facts = DayFacts(storage_day=DAY, coalescer=NOT_STARTED, published_from=published_from, runs=runs)
    decision = decide(facts, NOW)
    assert decision.action is action
    assert reason in decision.reason
