"""Which storage days are launched by themselves, and what the page of a failed run states about that.

Pure. What is done about such a day now is `core.launch_decision`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass
from cdi_dagster.core.launch_decision import RUN_AGAIN_AT_ONCE, PastRun, RunState


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
        since = now - self.calendar.look_back
        return self.is_on and (
            storage_day >= self.calendar.first_due_day(now) or any(_calls_for_another(run, since) for run in runs)
        )

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


def _calls_for_another(run: PastRun, since: datetime) -> bool:
    return run.failure_class in RUN_AGAIN_AT_ONCE and run.ended_at is not None and run.ended_at >= since
