"""Which storage days are launched by themselves, and what the page of a failed run states about that.

Pure. What is done about such a day now is `core.launch_decision`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass
from cdi_dagster.core.launch_decision import RUN_AGAIN_WHEN_POSSIBLE, PastRun, RunState, last_but_duplicates


@dataclass(frozen=True, kw_only=True)
class Automation:
    """What an installation launches by itself.

    Attributes:
        calendar: for the look-back.
        is_on: whether the coalescer completion sensor of the collection runs.
    """

    calendar: DayCalendar
    is_on: bool = True

    def launches(self, storage_day: date, runs: Sequence[PastRun], now: datetime) -> bool:
        """Whether a day is launched by itself: one of the look-back, or one whose recent run calls for another."""
        if not self.is_on or storage_day < self.calendar.first_storage_day:
            return False
        is_due = storage_day >= self.calendar.first_due_day(now)
        return is_due or calls_for_another(runs, now - self.calendar.look_back)

    def why_nothing(self, now: datetime) -> str:
        """Return why nothing is done about a day that is not launched by itself, and what to do then."""
        if not self.is_on:
            return "nothing: automation is off; materialise the day when the cause is fixed"
        return (
            f"nothing: automation launches storage days from {self.calendar.first_due_day(now)} on; materialise this "
            "one when the cause is fixed"
        )

    def after(self, failure_class: FailureClass, storage_day: date, runs: Sequence[PastRun], now: datetime) -> str:
        """Return what happens by itself after a run of a day, which is not among `runs`, failed."""
        failed = PastRun(run_id="", state=RunState.FAILED, failure_class=failure_class, ended_at=now)
        if self.launches(storage_day, [*runs, failed], now):
            return FAILURE_GUIDE[failure_class].by_itself
        why = self.why_nothing(now)
        return f"{why[0].upper()}{why[1:]}."


def calls_for_another(runs: Sequence[PastRun], since: datetime) -> bool:
    """Whether one of a day's runs, oldest first, failed lately so that a day of any age is run again by itself."""
    last = last_but_duplicates(runs)
    if last is None or last.state in (RunState.SUCCEEDED, RunState.CANCELED):
        return False
    return any(
        run.failure_class in RUN_AGAIN_WHEN_POSSIBLE and run.ended_at is not None and run.ended_at >= since
        for run in runs
    )


def in_turn(storage_days: Sequence[date], most: int, turn: int) -> list[date]:
    """Return as many days as one tick looks at, so that successive turns come to each of them."""
    if len(storage_days) <= most:
        return list(storage_days)
    first = turn * most % len(storage_days)
    return [*storage_days[first:], *storage_days[:first]][:most]
