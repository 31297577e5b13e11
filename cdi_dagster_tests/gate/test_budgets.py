"""What automation tries again, how often, and what it leaves to a person: the truth table of the budgets."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product

import pytest

from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.launch_decision import (
    MAX_ATTEMPTS,
    MAX_GATE_CLOSED_RUNS,
    MAX_INPUT_CHANGES,
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
OPEN = CoalescerStatus(state=CoalescerState.COMPLETE, reason="done", fingerprint="f1")
LAUNCH = launch_of(DAY, OPEN)
GATE_CLOSED = ("COALESCER_RUNNING", "COALESCER_NOT_STARTED", "COALESCER_FAILED", "COALESCER_UNKNOWN", "DUPLICATE_RUN")


def run(failure=None, *, state=RunState.FAILED, launch=LAUNCH, by_person=False, minutes_ago=600.0):
    return PastRun(
        run_id="r1",
        state=state,
        launch=launch,
        failure_class=FailureClass(failure) if failure else None,
        ended_at=NOW - timedelta(minutes=minutes_ago),
        by_person=by_person,
    )


def decided(*runs, published_from=None, coalescer=OPEN, listing=None, missing_tables=()):
    facts = DayFacts(
        storage_day=DAY,
        coalescer=coalescer,
        published_from=published_from,
        runs=runs,
        listing_fingerprint=listing,
        missing_tables=missing_tables,
    )
    return decide(facts, NOW)


@pytest.mark.parametrize("failure", list(FailureClass))
def test_one_failure_of_any_class_is_tried_again_exactly_where_that_can_help(failure):
    helps = FAILURE_GUIDE[failure].rerun_helps or failure in GATE_CLOSED
    assert decided(run(failure)).action == (LaunchAction.LAUNCH if helps else LaunchAction.LEAVE)


def test_no_class_is_tried_for_ever_and_no_attempt_repeats_a_run_key():
    for failure, by_person, count in product(FailureClass, (False, True), range(1, 13)):
        runs = [run(failure, by_person=by_person and number == 0) for number in range(count)]
        decision = decided(*runs)
        if decision.action is LaunchAction.LAUNCH:
            assert decision.attempt == count + 1
            assert count < (MAX_GATE_CLOSED_RUNS if failure in GATE_CLOSED else max(MAX_ATTEMPTS, MAX_INPUT_CHANGES))


@pytest.mark.parametrize("failure", GATE_CLOSED)
def test_a_run_that_found_the_gate_closed_costs_no_attempt_and_no_wait(failure):
    assert decided(run(failure, minutes_ago=0)).action is LaunchAction.LAUNCH
    lost = run("CLUSTER_LOST")
    assert decided(lost, lost, run(failure, minutes_ago=0)).action is LaunchAction.LAUNCH
    again = [run(failure, minutes_ago=0)] * 3
    assert decided(*again).action is LaunchAction.WAIT
    gate_closed = decided(*[run(failure)] * MAX_GATE_CLOSED_RUNS)
    assert gate_closed.action is LaunchAction.LEAVE
    assert ("same settings and permissions" in gate_closed.reason) == (failure != "DUPLICATE_RUN")


NOW_LOST = run("CLUSTER_LOST", minutes_ago=0)


@pytest.mark.parametrize(
    ("older", "action", "reason"),
    [
        ([run(state=RunState.CANCELED)], LaunchAction.LEAVE, "was terminated"),
        ([run("DKS_FORBIDDEN")], LaunchAction.LEAVE, "failed with DKS_FORBIDDEN"),
        ([run("CLUSTER_LOST")] * MAX_ATTEMPTS, LaunchAction.LEAVE, "3 runs, the last (r1) failed (CLUSTER_LOST)"),
        ([NOW_LOST], LaunchAction.WAIT, "failed with CLUSTER_LOST: next attempt from 12:10 UTC"),
        ([run("CLUSTER_LOST")], LaunchAction.LAUNCH, "failed with CLUSTER_LOST"),
        ([run("COALESCER_RUNNING", minutes_ago=0)], LaunchAction.WAIT, "next attempt from 12:01 UTC"),
    ],
)
@pytest.mark.parametrize("by_person", [False, True])
@pytest.mark.parametrize("in_tables", [False, True])
def test_how_a_run_ended_counts_though_a_younger_one_gave_way_to_it(older, action, reason, by_person, in_tables):
    duplicate = run("DUPLICATE_RUN", by_person=by_person, minutes_ago=0)
    missing = ("raw",) if in_tables else ()
    published_from = PublishedFrom(fingerprint="f1", published_at=NOW - timedelta(days=1)) if in_tables else None
    decision = decided(*older, duplicate, published_from=published_from, missing_tables=missing)
    assert decision.action is action
    assert reason in decision.reason


def test_lost_offsets_hold_a_day_though_a_younger_run_gave_way_to_the_one_that_found_it():
    lost = replace(run("OFFSETS_LOST"), listing_fingerprint="l1")
    assert decided(lost, run("DUPLICATE_RUN"), listing="l1").action is LaunchAction.LEAVE
    assert decided(lost, run("DUPLICATE_RUN"), listing="l2").action is LaunchAction.LAUNCH


def test_a_day_whose_runs_all_give_way_to_another_process_is_not_tried_for_ever():
    """As where `cdi ingest` of a terminal has the day's lease, or a run goes on that Dagster takes for dead."""
    lost = run("CLUSTER_LOST")
    assert decided(lost, *[run("DUPLICATE_RUN", minutes_ago=0)] * 2).action is LaunchAction.WAIT
    left = decided(lost, *[run("DUPLICATE_RUN")] * MAX_GATE_CLOSED_RUNS)
    assert left.action is LaunchAction.LEAVE
    assert "10 runs could not begin, the last (r1) with DUPLICATE_RUN" in left.reason


UNRECORDED = "again: run lost published it, and failed with {} before that was recorded"


@pytest.mark.parametrize("failure", [None, "WORKER_LOST", "INTERRUPTED", "CLUSTER_LOST", "STORAGE_UNAVAILABLE"])
@pytest.mark.parametrize("later", [(), ("INTERRUPTED",), ("DUPLICATE_RUN",)])
def test_what_a_failed_run_published_is_run_again_until_it_is_recorded(failure, later):
    lost = replace(run(failure), run_id="lost")
    facts = published_by_a_lost_run(lost, *map(run, later))
    assert decide(facts, NOW).action is LaunchAction.LAUNCH
    assert decide(facts, NOW).reason == UNRECORDED.format(failure or "a lost worker")
    assert not decide(facts, NOW).tables_only
    assert decide(replace(facts, unrecorded=None), NOW).action is LaunchAction.DONE


@pytest.mark.parametrize("later", [("LAUNCH_FAILED", "LAUNCH_FAILED"), ("JOB_FAILED",)])
def test_what_is_published_counts_where_no_further_run_records_it(later):
    facts = published_by_a_lost_run(replace(run("WORKER_LOST"), run_id="lost"), *map(run, later))
    assert decide(facts, NOW).action is LaunchAction.DONE
    tables = replace(
        facts, missing_tables=("uc.parts",), published_from=replace(facts.published_from, published_at=NOW)
    )
    assert (decide(tables, NOW).action, decide(tables, NOW).tables_only) == (LaunchAction.LAUNCH, True)


@pytest.mark.parametrize(("failure", "action"), [("WORKER_LOST", LaunchAction.WAIT), ("JOB_FAILED", LaunchAction.DONE)])
def test_a_click_that_published_and_failed_is_followed_as_its_class_has_it(failure, action):
    click = replace(run(failure, launch=None, by_person=True, minutes_ago=1), run_id="lost")
    assert decide(published_by_a_lost_run(click), NOW).action is action


def test_tables_that_a_failed_run_published_are_published_again_until_they_are_recorded():
    lost = replace(run("WORKER_LOST"), run_id="lost")
    facts = replace(published_by_a_lost_run(lost), unrecorded=None, unrecorded_tables=lost)
    assert (decide(facts, NOW).action, decide(facts, NOW).tables_only) == (LaunchAction.LAUNCH, True)
    assert decide(facts, NOW).reason == UNRECORDED.format("WORKER_LOST")
    waits = replace(facts, runs=(lost, run("CLUSTER_LOST", minutes_ago=1)))
    assert decide(waits, NOW).action is LaunchAction.WAIT
    used_up = replace(facts, runs=(lost, run("CLUSTER_LOST"), run("CLUSTER_LOST")))
    assert (decide(used_up, NOW).action, decide(used_up, NOW).reason) == (LaunchAction.DONE, "published")


def published_by_a_lost_run(lost, *later):
    published = PublishedFrom(fingerprint="f1", run_id="lost")
    return DayFacts(storage_day=DAY, coalescer=OPEN, published_from=published, runs=(lost, *later), unrecorded=lost)


def test_a_changed_input_is_run_again_at_once_and_three_times_at_most_whatever_it_was_launched_for():
    changes = [run("INPUT_CHANGED", launch=f"{DAY}|f-{n}", minutes_ago=0) for n in range(MAX_INPUT_CHANGES)]
    assert decided(run("INPUT_CHANGED", minutes_ago=0)).action is LaunchAction.LAUNCH
    assert decided(*changes[:-1]).action is LaunchAction.LAUNCH
    left = decided(*changes)
    assert left.action is LaunchAction.LEAVE
    assert "the input of 3 runs changed under them" in left.reason
    assert decided(*changes, run("DKS_UNAVAILABLE", by_person=True)).action is LaunchAction.LAUNCH


def test_a_person_who_asks_for_a_day_reopens_it():
    lost = run("CLUSTER_LOST")
    assert decided(lost, lost, lost).action is LaunchAction.LEAVE
    assert decided(lost, lost, lost, run("CLUSTER_LOST", by_person=True)).action is LaunchAction.LAUNCH
    assert decided(run("INPUT_INVALID"), run("CLUSTER_LOST", by_person=True)).action is LaunchAction.LAUNCH
    assert decided(run("CLUSTER_LOST"), run("INPUT_INVALID", by_person=True)).action is LaunchAction.LEAVE
    assert decided(run(state=RunState.CANCELED), run("CLUSTER_LOST", by_person=True)).action is LaunchAction.LAUNCH


def test_runs_that_end_well_and_publish_nothing_do_not_go_on_for_ever():
    fine = run(state=RunState.SUCCEEDED)
    assert decided(fine).action is LaunchAction.LAUNCH
    assert decided(fine, fine, fine).action is LaunchAction.LEAVE


def test_a_day_that_comes_back_to_what_it_was_has_a_run_key_of_its_own():
    first = decided()
    runs = [run(state=RunState.SUCCEEDED), run(state=RunState.SUCCEEDED, launch=f"{DAY}|f2")]
    back = decided(*runs[:1], runs[1], published_from=None)
    assert back.launch == first.launch
    assert back.run_key != first.run_key


OTHER = f"{DAY}|f2"
CLICK = run(state=RunState.SUCCEEDED, launch=None, by_person=True)


@pytest.mark.parametrize(
    ("younger", "action"),
    [
        ([], LaunchAction.DONE),
        ([run(state=RunState.SUCCEEDED, launch=OTHER)], LaunchAction.LAUNCH),
        # It published its records, and failed with the tables.
        ([run("CLUSTER_LOST", launch=OTHER)], LaunchAction.LAUNCH),
        # The same late object was read once more: what a person's run was launched for is not known.
        ([CLICK], LaunchAction.DONE),
        ([run(state=RunState.SUCCEEDED, launch=OTHER), CLICK], LaunchAction.LAUNCH),
        ([run(state=RunState.SUCCEEDED, launch=OTHER), run(state=RunState.SUCCEEDED)], LaunchAction.DONE),
    ],
)
def test_a_day_that_comes_back_to_what_it_was_is_ingested_again_where_it_shows_what_came_between(younger, action):
    """Nothing that is published has the coalescer's fingerprint: runs may pin more than it left, a late object."""
    runs = [replace(each, run_id=f"r{n}") for n, each in enumerate([run(state=RunState.SUCCEEDED), *younger])]
    published_from = PublishedFrom(fingerprint="of the last run", run_id=runs[-1].run_id)
    decision = decided(*runs, published_from=published_from)
    assert decision.action is action
    assert ("published by run" in decision.reason) == (action is LaunchAction.DONE)


BATCH = CoalescerStatus(state=CoalescerState.COMPLETE, reason="2 jobs", completed_at=NOW - timedelta(hours=1))


@pytest.mark.parametrize(
    ("published_hours_ago", "listing", "action"),
    [
        (3, "f1", LaunchAction.DONE),  # it ran again and changed nothing
        (3, "f2", LaunchAction.LAUNCH),  # it ran again and changed the day
        (0.5, "f1", LaunchAction.DONE),
        (0.5, "f2", LaunchAction.LAUNCH),  # it completed while the run was at work on the older listing
    ],
)
def test_a_source_without_fingerprints_goes_by_the_listing(published_hours_ago, listing, action):
    published_from = PublishedFrom(fingerprint="f1", published_at=NOW - timedelta(hours=published_hours_ago))
    assert decided(published_from=published_from, coalescer=BATCH, listing=listing).action is action


def test_a_run_that_succeeded_for_this_completion_settles_it_whatever_the_listing_says():
    published_from = PublishedFrom(fingerprint="f1", published_at=NOW)
    done = run(state=RunState.SUCCEEDED, launch=launch_of(DAY, BATCH))
    assert (
        decided(done, published_from=published_from, coalescer=BATCH, listing="late object").action is LaunchAction.DONE
    )


@pytest.mark.parametrize("state", [state for state in CoalescerState if state is not CoalescerState.COMPLETE])
def test_a_published_day_whose_gate_is_closed_again_says_that_it_is_published(state):
    closed = CoalescerStatus(state=state, reason="why")
    decision = decided(published_from=PublishedFrom(fingerprint="f1"), coalescer=closed)
    assert (decision.action, decision.reason) == (LaunchAction.WAIT, f"published; since then coalescer {state}: why")
