"""Which days are launched by themselves, and that a failed run's page promises no more than that."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest

from cdi_dagster.core.automation import Automation, calls_for_another, in_turn
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass
from cdi_dagster.core.launch_decision import PastRun, RunState

NOW = datetime(2023, 3, 27, 12, tzinfo=UTC)
FIRST = date(2023, 3, 20)
OLD = date(2023, 1, 5)
CALENDAR = DayCalendar(first_storage_day=date(2022, 1, 1), due_time=time(9, 30), late_time=time(12), look_back_days=7)
ON = Automation(calendar=CALENDAR)
OFF = Automation(calendar=CALENDAR, is_on=False)


def failed(failure, *, days_ago=0.0):
    return PastRun(
        run_id="r1",
        state=RunState.FAILED,
        failure_class=FailureClass(failure),
        ended_at=NOW - timedelta(days=days_ago),
    )


def test_days_of_the_look_back_are_launched_and_older_ones_are_not():
    assert ON.launches(FIRST, (), NOW)
    assert not ON.launches(FIRST - timedelta(days=1), (failed("CLUSTER_LOST"),), NOW)
    assert not OFF.launches(FIRST, (), NOW)


def test_an_old_day_is_launched_while_a_run_that_calls_for_another_is_recent():
    assert ON.launches(OLD, (failed("INTERRUPTED", days_ago=6.9),), NOW)
    assert not ON.launches(OLD, (failed("INTERRUPTED", days_ago=7.1),), NOW)
    # What is run again by itself stays so, whatever its next run fails with.
    assert ON.launches(OLD, (failed("INTERRUPTED", days_ago=1), failed("CLUSTER_LOST")), NOW)
    assert not OFF.launches(OLD, (failed("INTERRUPTED"),), NOW)
    later = Automation(calendar=replace(CALENDAR, first_storage_day=OLD + timedelta(days=1)))
    assert not later.launches(OLD, (failed("INTERRUPTED"),), NOW)


@pytest.mark.parametrize("failure", FailureClass)
def test_the_page_of_an_old_day_or_without_automation_promises_nothing(failure):
    guide = FAILURE_GUIDE[failure].by_itself
    assert ON.after(failure, FIRST, (), NOW) == guide
    old = ON.after(failure, OLD, (), NOW)
    assert (old == guide) == ON.launches(OLD, (failed(failure),), NOW)
    assert old == guide or old.startswith("Nothing: automation launches storage days from 2023-03-20 on")
    assert OFF.after(failure, FIRST, (), NOW) == (
        "Nothing: automation is off; materialise the day when the cause is fixed."
    )


def test_a_lost_cluster_of_an_old_day_promises_no_retry():
    assert ON.after(FailureClass.CLUSTER_LOST, OLD, (), NOW).startswith("Nothing: ")


@pytest.mark.parametrize("state", [RunState.SUCCEEDED, RunState.CANCELED])
def test_a_day_whose_last_run_succeeded_or_was_terminated_calls_for_no_other(state):
    refused = failed("COALESCER_RUNNING")
    assert calls_for_another((refused,), NOW - timedelta(days=7))
    ended = PastRun(run_id="r2", state=state)
    assert not calls_for_another((refused, ended), NOW - timedelta(days=7))
    assert not calls_for_another((refused, ended, failed("DUPLICATE_RUN")), NOW - timedelta(days=7))


def test_of_many_old_days_each_has_its_turn():
    days = [OLD + timedelta(days=n) for n in range(365)]
    assert in_turn(days[:20], 20, turn=7) == days[:20]
    seen = [day for turn in range(1000, 1019) for day in in_turn(days, 20, turn)]
    assert set(seen) == set(days)
    assert len(in_turn(days, 20, turn=18)) == 20
