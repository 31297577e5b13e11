"""Whether a storage day is launched now: the one decision behind schedule and sensor.

Pure: facts in, a decision with its reason out. Reading the facts is `cdi_dagster.sensors.day_facts`; the run itself
asks the gate again, so a decision that has aged starts nothing beside the coalescer.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum

from cdi_dagster.core.days import due_at
from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass
from cdi_dagster.core.gate import CoalescerStatus

SCHEDULE_OWNS = timedelta(seconds=60)
"""The schedule launches only within this time from the due moment; later it leaves the day to the sensor."""
SENSOR_OWNS_FROM = timedelta(seconds=120)
"""The sensor launches only from this time after the due moment: so the two never launch at the same moment."""
MAX_ATTEMPTS = 3
RETRY_WAIT = timedelta(minutes=10)
"""Wait after the first failed attempt; twice as long after the second, and so on."""

_MENDS_WHEN_THE_GATE_OPENS = frozenset(
    {
        FailureClass.COALESCER_RUNNING,
        FailureClass.COALESCER_NOT_STARTED,
        FailureClass.COALESCER_FAILED,
        FailureClass.COALESCER_UNKNOWN,
        FailureClass.DUPLICATE_RUN,
    }
)


class RunState(StrEnum):
    """What has become of a run."""

    LIVE = "LIVE"
    """Queued, starting, running, or being ended."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """One run of the day that publishes, or would have published.

    Attributes:
        run_id: Dagster's.
        state: what has become of it.
        launch: what it was launched for (`launch_of`), where known.
        failure_class: why it failed, where it said so.
        ended_at: aware, UTC; None while it is live.
    """

    run_id: str
    state: RunState
    launch: str | None = None
    failure_class: FailureClass | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What the output says of itself (its `_SUCCESS` mark)."""

    fingerprint: str
    published_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class DayFacts:
    """Everything that the decision about one collection and storage day goes by.

    Attributes:
        storage_day: the partition.
        coalescer: the gate.
        publication: what is published, or None.
        runs: of this day, oldest first.
        unreadable: why something of the above could not be read; then the day waits.
    """

    storage_day: date
    coalescer: CoalescerStatus
    publication: Publication | None
    runs: tuple[PastRun, ...]
    unreadable: str | None = None


class Verdict(StrEnum):
    """What is to be done about a day now."""

    LAUNCH = "LAUNCH"
    WAIT = "WAIT"
    """Not yet: asked again at the next tick."""
    DONE = "DONE"
    LEAVE = "LEAVE"
    """Automation has done what it may; a person re-opens the day by materialising it."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is to be done about a day, and why.

    Attributes:
        verdict: what to do.
        reason: a sentence for the person who reads the tick.
        launch: what is launched for; set where the verdict is LAUNCH.
        attempt: 1 for the first run of this launch; set where the verdict is LAUNCH.
    """

    verdict: Verdict
    reason: str
    launch: str | None = None
    attempt: int = 0

    @property
    def run_key(self) -> str:
        """New for every attempt: Dagster remembers a run key for ever."""
        return f"{self.launch}|{self.attempt}"


def launch_of(storage_day: date, coalescer: CoalescerStatus) -> str:
    """Return what a run of an open day is launched for: the day, and what tells this coalescing from another."""
    completed = coalescer.completed_at.isoformat() if coalescer.completed_at else "complete"
    return f"{storage_day}|{coalescer.fingerprint or completed}"


def schedule_owns(storage_day: date, now: datetime, due_time: time) -> bool:
    """Whether a tick evaluated at `now` is the schedule's to act on."""
    due = due_at(storage_day, due_time)
    return due <= now < due + SCHEDULE_OWNS


def sensor_owns(storage_day: date, now: datetime, due_time: time) -> bool:
    """Whether a tick evaluated at `now` is the sensor's to act on."""
    return now >= due_at(storage_day, due_time) + SENSOR_OWNS_FROM


def decide(facts: DayFacts, now: datetime) -> Decision:
    """Decide about one due day."""
    if facts.unreadable:
        return Decision(verdict=Verdict.WAIT, reason=facts.unreadable)
    live = next((run for run in facts.runs if run.state is RunState.LIVE), None)
    if live:
        return Decision(verdict=Verdict.WAIT, reason=f"run {live.run_id} is at work")
    if not facts.coalescer.is_open:
        return Decision(verdict=Verdict.WAIT, reason=f"coalescer {facts.coalescer.state}: {facts.coalescer.reason}")
    launch = launch_of(facts.storage_day, facts.coalescer)
    runs = [run for run in facts.runs if run.launch == launch]
    done = _why_done(facts, runs)
    if done:
        return Decision(verdict=Verdict.DONE, reason=done)
    if runs and runs[-1].state is not RunState.SUCCEEDED:
        held = _why_not_again(runs, now)
        if held:
            return held
    again = "again: it was coalesced again after it was published" if facts.publication else facts.coalescer.reason
    return Decision(verdict=Verdict.LAUNCH, reason=again, launch=launch, attempt=len(runs) + 1)


def _why_done(facts: DayFacts, runs: list[PastRun]) -> str | None:
    published = facts.publication
    if published is None:
        return None
    coalescer = facts.coalescer
    if published.fingerprint == coalescer.fingerprint:
        return "published"
    succeeded = next((run for run in runs if run.state is RunState.SUCCEEDED), None)
    if succeeded:
        # The run pinned what it found, which may be more than the coalescer left: an object that came late.
        return f"published by run {succeeded.run_id}"
    if coalescer.fingerprint is None and (
        coalescer.completed_at is None or (published.published_at and published.published_at >= coalescer.completed_at)
    ):
        return "published since the coalescer completed"
    return None


def _why_not_again(runs: list[PastRun], now: datetime) -> Decision | None:
    last = runs[-1]
    if last.state is RunState.CANCELED:
        return Decision(verdict=Verdict.LEAVE, reason=f"run {last.run_id} was ended by hand: materialise it by hand")
    why = last.failure_class
    if why and why not in _MENDS_WHEN_THE_GATE_OPENS and not FAILURE_GUIDE[why].rerun_helps:
        return Decision(
            verdict=Verdict.LEAVE,
            reason=f"run {last.run_id} failed with {why}, which a re-run does not mend. {FAILURE_GUIDE[why].next_step}",
        )
    named = why or "a lost worker"
    if len(runs) >= MAX_ATTEMPTS:
        return Decision(
            verdict=Verdict.LEAVE,
            reason=f"{len(runs)} runs failed, the last ({last.run_id}) with {named}: mend it, then materialise it",
        )
    retry_at = last.ended_at + RETRY_WAIT * 2 ** (len(runs) - 1) if last.ended_at else now
    if now < retry_at:
        return Decision(
            verdict=Verdict.WAIT,
            reason=f"run {last.run_id} failed with {named}: next attempt from {retry_at:%H:%M} UTC",
        )
    return None
