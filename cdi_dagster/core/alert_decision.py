"""Whether a person is told of a run that failed: nobody is woken for what mends itself, and nobody waits for the rest.

Pure. When each failure class is told is in `FAILURE_GUIDE`; what automation does next is `core.launch_decision`.
Reading runs and sending is `cdi_dagster.sensors.failed_runs`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass, Told
from cdi_dagster.core.launch_decision import DayFacts, PastRun, RunState, Verdict, decide


class Telling(StrEnum):
    """What is to be done about one failed run."""

    TELL = "TELL"
    BE_QUIET = "BE_QUIET"
    ASK_AGAIN = "ASK_AGAIN"
    """It cannot be known yet: something could not be read."""


@dataclass(frozen=True, kw_only=True)
class ToldDecision:
    """Whether somebody is told, and what happens by itself in either case, in words."""

    telling: Telling
    what_happens: str


def decide_telling(
    run_id: str, failure_class: FailureClass, facts: DayFacts, now: datetime, *, automated: bool
) -> ToldDecision:
    """Decide about one failed run.

    Args:
        run_id: of the run.
        failure_class: why it failed.
        facts: of its day. Its runs hold this one only if it publishes: a run of tables alone does not.
        now: aware, UTC.
        automated: whether automation looks at the day at all; it does not look at days long ago.
    """
    position = next((number for number, run in enumerate(facts.runs) if run.run_id == run_id), len(facts.runs))
    succeeded = next((run for run in facts.runs[position + 1 :] if run.state is RunState.SUCCEEDED), None)
    if succeeded:
        return _quiet(f"run {succeeded.run_id} of the day has succeeded since")
    told = FAILURE_GUIDE[failure_class].told
    if told is Told.LATE:
        return _quiet("its day is told of, if it is late")
    if facts.unreadable and told is not Told.AT_ONCE:
        return ToldDecision(telling=Telling.ASK_AGAIN, what_happens=facts.unreadable)
    decision = decide(facts, now)
    goes_on = automated and decision.verdict in (Verdict.LAUNCH, Verdict.WAIT)
    if not goes_on:
        why = f": {decision.reason}" if decision.verdict in (Verdict.LEAVE, Verdict.DONE) else ""
        return ToldDecision(telling=Telling.TELL, what_happens=f"nothing{why}")
    what_happens = "the day is run again now" if decision.verdict is Verdict.LAUNCH else decision.reason
    if _can_wait(told, failure_class, facts.runs[:position]):
        return _quiet(what_happens)
    return ToldDecision(telling=Telling.TELL, what_happens=what_happens)


def _can_wait(told: Told, failure_class: FailureClass, before: Sequence[PastRun]) -> bool:
    """Whether it may be left to automation, which goes on, without a word."""
    happened_before = any(run.failure_class is failure_class for run in before)
    match told:
        case Told.TWICE:
            return not happened_before
        case Told.AT_ONCE:
            # Somebody knows already; the next word is when automation gives the day up.
            return happened_before
        case _:
            return True


def _quiet(what_happens: str) -> ToldDecision:
    return ToldDecision(telling=Telling.BE_QUIET, what_happens=what_happens)
