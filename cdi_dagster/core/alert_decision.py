"""Whether on call is alerted of a failed run: not where a retry may fix it, at once where only a person can.

Pure. When each failure class is alerted is in `FAILURE_GUIDE`; what automation does next is `core.launch_decision`.
Reading runs and sending is `cdi_dagster.sensors.failed_runs`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cdi_dagster.core.automation import Automation
from cdi_dagster.core.failures import FAILURE_GUIDE, AlertTiming, FailureClass
from cdi_dagster.core.launch_decision import (
    MAX_ATTEMPTS,
    DayFacts,
    LaunchAction,
    LaunchDecision,
    PastRun,
    RunState,
    decide,
)
from cdi_dagster.core.snapshot_decision import SnapshotFacts, decide_snapshot, due_snapshots

UNDECIDED_FOR = timedelta(hours=20)
"""After its end a run is undecided for so long at most: after a day the failed runs sensor no longer looks at it."""


class AlertAction(StrEnum):
    """What to do about one failed run."""

    ALERT = "ALERT"
    STAY_QUIET = "STAY_QUIET"
    RETRY_LATER = "RETRY_LATER"
    """Not decided yet: something could not be read, or the closed gate hides whether the run is followed by another."""


@dataclass(frozen=True, kw_only=True)
class AlertDecision:
    """Whether an alert is sent, and what happens automatically in either case, in words.

    Attributes:
        action: what to do.
        what_happens: in words.
        will_retry: whether automation runs the day again.
    """

    action: AlertAction
    what_happens: str
    will_retry: bool = False


def decide_alert(
    run_id: str, failure_class: FailureClass, facts: DayFacts, now: datetime, automation: Automation
) -> AlertDecision:
    """Decide about one failed run.

    Args:
        run_id: of the run.
        failure_class: why it failed.
        facts: of its day. Its runs hold this one only if it publishes something.
        now: aware, UTC.
        automation: whether the day is launched by itself at all.
    """
    automated = automation.launches(facts.storage_day, facts.runs, now)
    may_be_late = facts.storage_day >= automation.calendar.first_due_day(now)
    is_held = not facts.coalescer.is_open and not facts.coalescer.run_coalesces
    return _decide(
        run_id,
        failure_class,
        facts,
        decide(facts, now),
        now,
        named="day",
        why_nothing=None if automated else automation.why_nothing(now),
        may_be_late=may_be_late,
        # Whether its attempts are used up shows once the gate is open, and of a published day LATE does not report it.
        is_unclear=is_held and not (facts.is_unpublished and may_be_late),
    )


def decide_snapshot_alert(
    run_id: str, failure_class: FailureClass, facts: SnapshotFacts, now: datetime, automation: Automation
) -> AlertDecision:
    """Decide about one failed run of a snapshot, as `decide_alert` about that of a day."""
    is_due = facts.export_day in due_snapshots(automation.calendar, now)
    why = "only snapshots of the look-back are made by themselves" if automation.is_on else "automation is off"
    return _decide(
        run_id,
        failure_class,
        facts,
        decide_snapshot(facts, now),
        now,
        named="snapshot",
        why_nothing=None if automation.is_on and is_due else f"nothing: {why}; materialise it when the cause is fixed",
        may_be_late=is_due,
    )


def _decide(
    run_id: str,
    failure_class: FailureClass,
    facts: DayFacts | SnapshotFacts,
    decision: LaunchDecision,
    now: datetime,
    *,
    named: str,
    why_nothing: str | None,
    may_be_late: bool,
    is_unclear: bool = False,
) -> AlertDecision:
    position = next((number for number, run in enumerate(facts.runs) if run.run_id == run_id), len(facts.runs))
    succeeded = _succeeded_since(facts, position, decision)
    if succeeded:
        return _quiet(f"run {succeeded.run_id} of the {named} has succeeded since")
    timing = FAILURE_GUIDE[failure_class].alert_timing
    what_happens = _what_happens(decision, why_nothing, named)
    if timing is AlertTiming.DAY_LATE:
        return _quiet(f"its {named} is reported if it is late" if may_be_late else what_happens)
    ended_at = facts.runs[position].ended_at if position < len(facts.runs) else None
    may_wait = ended_at is None or now - ended_at < UNDECIDED_FOR
    undecided = AlertAction.RETRY_LATER if may_wait else AlertAction.ALERT
    if facts.unreadable and timing is not AlertTiming.AT_ONCE:
        return AlertDecision(action=undecided, what_happens=facts.unreadable)
    will_retry = why_nothing is None and decision.action in (LaunchAction.LAUNCH, LaunchAction.WAIT)
    if not will_retry:
        return AlertDecision(action=AlertAction.ALERT, what_happens=what_happens)
    if _can_wait(timing, failure_class, facts.runs[:position]):
        may_be_last = timing is AlertTiming.AT_ONCE or position + 1 >= MAX_ATTEMPTS
        if is_unclear and may_be_last:
            return AlertDecision(action=undecided, what_happens=what_happens)
        return _quiet(what_happens)
    return AlertDecision(action=AlertAction.ALERT, what_happens=what_happens, will_retry=True)


def _what_happens(decision: LaunchDecision, why_nothing: str | None, named: str) -> str:
    match decision.action:
        case LaunchAction.LEAVE | LaunchAction.DONE:
            return f"nothing: {decision.reason}"
        case _ if why_nothing:
            return why_nothing
        case LaunchAction.LAUNCH:
            return "the tables alone are run again now" if decision.tables_only else f"the {named} is run again now"
        case _:
            return decision.reason


def _succeeded_since(facts: DayFacts | SnapshotFacts, position: int, decision: LaunchDecision) -> PastRun | None:
    """Return a later run that succeeded; one of the tables alone counts where nothing of the day is left to do."""
    if facts.missing_tables:
        return None
    is_done = decision.action is LaunchAction.DONE
    later = [run for run in facts.runs[position + 1 :] if run.state is RunState.SUCCEEDED]
    return next((run for run in later if run.publishes_records or is_done), None)


def _can_wait(timing: AlertTiming, failure_class: FailureClass, before: Sequence[PastRun]) -> bool:
    """Whether no alert is needed while automation retries."""
    happened_before = any(run.failure_class is failure_class for run in before)
    match timing:
        case AlertTiming.SECOND_TIME:
            return not happened_before
        case AlertTiming.AT_ONCE:
            # On call knows already; the next alert is sent when automation stops retrying.
            return happened_before
        case _:
            return True


def _quiet(what_happens: str) -> AlertDecision:
    return AlertDecision(action=AlertAction.STAY_QUIET, what_happens=what_happens)
