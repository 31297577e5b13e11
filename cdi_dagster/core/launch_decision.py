"""Whether a storage day is launched now: the one decision behind schedule and sensor.

Pure: facts in, a decision with its reason out. Reading the facts is `cdi_dagster.day_facts`. The run checks the gate
again, so an outdated decision starts nothing while the coalescer runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum

from cdi_dagster.core.failures import FAILURE_GUIDE, CdiError, FailureClass
from cdi_dagster.core.gate import CoalescerStatus

MAX_ATTEMPTS = 3
RETRY_WAIT = timedelta(minutes=10)
"""Wait after the first failed attempt; twice as long after the second, and so on."""
RUN_AGAIN_AT_ONCE = frozenset({FailureClass.INPUT_CHANGED, FailureClass.INTERRUPTED})
"""A run that failed so is followed by another without a wait, whoever requested it and however old its day is."""
MAX_INPUT_CHANGES = 3
"""Runs of a day whose input changed under them, whatever they were launched for, before a person has to look."""
MAX_GATE_CLOSED_RUNS = 10
"""Runs that found the gate closed though it looked open from here: then this side and the runs do not see the same."""
GATE_CLOSED_WAIT = timedelta(minutes=1)
"""Wait after the second run that found the gate closed; longer by the same time after each further one."""

_FOUND_GATE_CLOSED = frozenset(
    {
        FailureClass.COALESCER_RUNNING,
        FailureClass.COALESCER_NOT_STARTED,
        FailureClass.COALESCER_FAILED,
        FailureClass.COALESCER_UNKNOWN,
    }
)
_NO_ATTEMPT = _FOUND_GATE_CLOSED | {FailureClass.DUPLICATE_RUN}
RUN_AGAIN_WHEN_POSSIBLE = RUN_AGAIN_AT_ONCE | _FOUND_GATE_CLOSED | {FailureClass.OFFSETS_LOST}
"""A day of any age whose run failed so is run again as soon as what it waited for is there."""

_NO_TABLES = f"{FailureClass.TABLES_MISSING}: records are published, tables ({{}}) are not"


class RunState(StrEnum):
    """The state of a run, as far as a decision needs it."""

    LIVE = "LIVE"
    """Queued, starting, running, or being terminated."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """One run of the day that publishes, or would have published.

    Attributes:
        run_id: Dagster's; also the correlation id of what it published.
        state: of the run.
        launch: what it was launched for (`launch_of`), where known.
        failure_class: why it failed, where known.
        listing_fingerprint: of the day's listing that lacked offsets, where it failed with OFFSETS_LOST.
        started_at: aware, UTC; None while it is queued.
        ended_at: aware, UTC; None while it is live.
        by_person: whether a person requested it: by a click, a backfill or a re-execution.
        is_configured: whether it was given configuration, which automation gives to none.
        publishes_records: whether it publishes the records; one that does not, publishes tables alone.
        publishes_tables: whether it publishes tables.
        is_alerted: whether on call was alerted of its failure.
    """

    run_id: str
    state: RunState
    launch: str | None = None
    failure_class: FailureClass | None = None
    listing_fingerprint: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    by_person: bool = False
    is_configured: bool = False
    publishes_records: bool = True
    publishes_tables: bool = True
    is_alerted: bool = False


@dataclass(frozen=True, kw_only=True)
class PublishedFrom:
    """What the published records were made from, when, and by which run: the part of their mark that a decision needs.

    Attributes:
        fingerprint: of the pinned input.
        published_at: aware, UTC.
        run_id: correlation id of the run, which need not be one of this Dagster.
    """

    fingerprint: str
    published_at: datetime | None = None
    run_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class DayFacts:
    """Everything that the decision about one collection and storage day depends on.

    Attributes:
        storage_day: the partition.
        coalescer: the gate.
        published_from: of the published records, or None.
        missing_tables: names of the tables that do not show the published records; none where no table is defined.
        runs: of this day, oldest first.
        listing_fingerprint: of the day's listing now. Read only where `needs_listing`.
        unrecorded: the run that published the records and failed, where Dagster has no materialisation of them.
        unrecorded_tables: the same of the tables.
        unreadable: why something of the above could not be read; then the day waits.
        damaged: of records whose mark is there and cannot be read: no run gets past it before a person restores it.
    """

    storage_day: date
    coalescer: CoalescerStatus
    published_from: PublishedFrom | None
    runs: tuple[PastRun, ...]
    listing_fingerprint: str | None = None
    missing_tables: tuple[str, ...] = ()
    unrecorded: PastRun | None = None
    unrecorded_tables: PastRun | None = None
    unreadable: str | None = None
    damaged: CdiError | None = None

    @property
    def is_unpublished(self) -> bool:
        """Whether it is certain that the day is not published: records or tables are missing, or damaged."""
        return (self.published_from is None or self.lacks_tables) and self.unreadable is None

    @property
    def lacks_tables(self) -> bool:
        """Whether records are published and tables of them are missing."""
        return self.published_from is not None and bool(self.missing_tables)

    @property
    def waits_for_coalescer(self) -> bool:
        """Whether it is unpublished and the coalescer is not done."""
        return self.is_unpublished and not self.coalescer.is_open

    @property
    def needs_listing(self) -> bool:
        """Whether the decision depends on the day's listing being what was published, or what lacked offsets.

        AWS Batch reports that the coalescer ran, not what it left; and no coalescer reports that a lost object is back.
        """
        if not self.coalescer.is_open:
            return False
        is_unclear = self.published_from is not None and not self.coalescer.fingerprint and not self.is_published_for
        return is_unclear or self.lost_offsets is not None

    @property
    def lost_offsets(self) -> PastRun | None:
        """The last run for records, where it ended because the day lacks offsets."""
        last = last_but_duplicates(self.runs_for_records)
        return last if last and last.failure_class is FailureClass.OFFSETS_LOST else None

    @property
    def is_published_for(self) -> PastRun | None:
        """The last run that published the records, or succeeded, where it did so for what the coalescer left.

        Runs without a launch, which are a person's, do not count: what they found is not known.
        """
        publisher = self.published_from.run_id if self.published_from else None
        published = (
            run
            for run in reversed(self.runs_for_records)
            if run.launch and (run.state is RunState.SUCCEEDED or run.run_id == publisher)
        )
        last = next(published, None)
        return last if last and last.launch == launch_of(self.storage_day, self.coalescer) else None

    @property
    def runs_for_records(self) -> tuple[PastRun, ...]:
        """The runs that publish records."""
        return tuple(run for run in self.runs if run.publishes_records)

    @property
    def runs_for_tables(self) -> tuple[PastRun, ...]:
        """The runs that publish tables of the records that are published now: they ended after these appeared."""
        since = self.published_from and self.published_from.published_at
        return tuple(
            run for run in self.runs if run.publishes_tables and not (since and run.ended_at and run.ended_at < since)
        )


class LaunchAction(StrEnum):
    """What to do about a day now."""

    LAUNCH = "LAUNCH"
    WAIT = "WAIT"
    """Not yet: decided again at the next tick."""
    DONE = "DONE"
    LEAVE = "LEAVE"
    """Automation has used up its attempts, or may not try; a person reopens the day by materialising it."""


@dataclass(frozen=True, kw_only=True)
class LaunchDecision:
    """What to do about a day, and why.

    Attributes:
        action: what to do.
        reason: a sentence for the person who reads the tick.
        launch: what it is launched for; set where the action is LAUNCH.
        attempt: 1 for the day's first run, whatever it is launched for; set where the action is LAUNCH.
        tables_only: whether the run publishes the tables alone, from the records that are published.
    """

    action: LaunchAction
    reason: str
    launch: str | None = None
    attempt: int = 0
    tables_only: bool = False

    @property
    def run_key(self) -> str:
        """New for every attempt, also where a day returns to an earlier state: Dagster never forgets a run key."""
        return f"{self.launch}|{self.attempt}"


def launch_of(storage_day: date, coalescer: CoalescerStatus) -> str:
    """Return what a run of an open day is launched for: the day, and which coalescing of it."""
    completed = coalescer.completed_at.isoformat() if coalescer.completed_at else "complete"
    return f"{storage_day}|{coalescer.fingerprint or completed}"


def decide(facts: DayFacts, now: datetime) -> LaunchDecision:
    """Decide about one due day."""
    if facts.unreadable:
        return LaunchDecision(action=LaunchAction.WAIT, reason=facts.unreadable)
    published = _NO_TABLES.format(", ".join(facts.missing_tables)) if facts.lacks_tables else "published"
    live = next((run for run in facts.runs if run.state is RunState.LIVE), None)
    if live:
        running = f"run {live.run_id} is running"
        return LaunchDecision(
            action=LaunchAction.WAIT, reason=f"{published}; {running}" if facts.lacks_tables else running
        )
    if facts.damaged:
        return _leave(f"what is published cannot be read: {facts.damaged}")
    if not facts.coalescer.is_open and not facts.coalescer.run_coalesces:
        since = f"{published}; since then " if facts.published_from else ""
        reason = f"{since}coalescer {facts.coalescer.state}: {facts.coalescer.reason}"
        return LaunchDecision(action=LaunchAction.WAIT, reason=reason)
    done = _decide_done(facts, published, now) if facts.coalescer.is_open else None
    if done and not facts.unrecorded:
        return done
    launch = launch_of(facts.storage_day, facts.coalescer)
    counted = facts.unrecorded if done else None  # also where a person requested it, for nothing in particular
    runs = [run for run in facts.runs_for_records if run.launch == launch or run is counted]
    held = (
        _why_lost_offsets_hold(facts)
        or why_not_again(since_person_requested(runs), now)
        or _why_input_is_left(since_person_requested(facts.runs_for_records))
    )
    if held and held.action is LaunchAction.LEAVE and done:
        return done  # what is published counts, recorded or not
    if held and runs and held.action is LaunchAction.LEAVE and not facts.coalescer.is_open:
        return _leave(
            f"{len(runs)} runs could not coalesce it, the last is {runs[-1].run_id} ({why_failed(runs[-1])}): "
            f"{facts.coalescer.reason}. Fix what is named, then materialise it"
        )
    if held:
        return held
    return LaunchDecision(
        action=LaunchAction.LAUNCH,
        reason=_why_launched(facts, published, runs),
        launch=launch,
        attempt=len(facts.runs) + 1,
    )


def _why_launched(facts: DayFacts, published: str, runs: Sequence[PastRun]) -> str:
    if not facts.coalescer.is_open:
        since = f"{published}; since then " if facts.published_from else ""
        return f"{since}the run coalesces it: {facts.coalescer.reason}"
    if facts.unrecorded and _why_done(facts):
        return why_unrecorded(facts.unrecorded)
    if facts.published_from:
        return "again: it was coalesced again after it was published"
    if facts.lost_offsets:
        return f"again: its listing changed since run {facts.lost_offsets.run_id} failed with OFFSETS_LOST"
    last = last_but_duplicates(runs)
    return f"again: run {last.run_id} failed with {why_failed(last)}" if last else facts.coalescer.reason


def _decide_done(facts: DayFacts, published: str, now: datetime) -> LaunchDecision | None:
    """Decide about a day whose records are as they should be; None where they are not."""
    done = _why_done(facts)
    if done is None:
        return None
    if facts.missing_tables:
        return _decide_tables(facts, published, now)
    if facts.unrecorded_tables:
        return decide_unrecorded_tables(facts.unrecorded_tables, _decide_tables(facts, published, now), done)
    return LaunchDecision(action=LaunchAction.DONE, reason=done)


def _decide_tables(facts: DayFacts, missing: str, now: datetime) -> LaunchDecision:
    """Decide about a day whose records are as they should be, and whose tables are not."""
    runs = facts.runs_for_tables
    held = why_not_again(since_person_requested(runs), now)
    if held:
        return replace(held, reason=f"{missing}: {held.reason}")
    last = last_but_duplicates(runs)
    return LaunchDecision(
        action=LaunchAction.LAUNCH,
        reason=f"{missing}: run {last.run_id} failed with {why_failed(last)}" if last else missing,
        launch=launch_of(facts.storage_day, facts.coalescer),
        attempt=len(facts.runs) + 1,
        tables_only=True,
    )


def _why_done(facts: DayFacts) -> str | None:
    published, coalescer = facts.published_from, facts.coalescer
    if published is None:
        return None
    if published.fingerprint == coalescer.fingerprint:
        return "published"
    if facts.is_published_for:
        # The run pinned what it found, which may be more than the coalescer left: an object may have come late.
        return f"published by run {facts.is_published_for.run_id}"
    if coalescer.fingerprint is not None:
        return None
    if facts.listing_fingerprint is not None:
        same = published.fingerprint == facts.listing_fingerprint
        return "published, from the objects that are there now" if same else None
    if coalescer.completed_at is None or (published.published_at and published.published_at >= coalescer.completed_at):
        return "published since the coalescer completed"
    return None


def since_person_requested(runs: Sequence[PastRun]) -> Sequence[PastRun]:
    """Return the runs that count: a person who requests a run of the day reopens it, unless it was a duplicate."""
    requested = max((number for number, run in enumerate(runs) if run.by_person and not _is_duplicate(run)), default=0)
    return runs[requested:]


def last_but_duplicates(runs: Sequence[PastRun]) -> PastRun | None:
    """Return the last run that was not a duplicate: it shows how the day is. Of duplicates alone the last."""
    last = runs[-1] if runs else None
    return next((run for run in reversed(runs) if not _is_duplicate(run)), last)


def decide_unrecorded_tables(failed: PastRun, again: LaunchDecision, done: str) -> LaunchDecision:
    """Decide about tables that are there, and of which Dagster has no materialisation: what is published counts.

    Args:
        failed: the run that published them.
        again: what would be done if they were missing.
        done: why nothing else is left to do.
    """
    if again.action is LaunchAction.LEAVE:
        return LaunchDecision(action=LaunchAction.DONE, reason=done)
    return replace(again, reason=why_unrecorded(failed)) if again.action is LaunchAction.LAUNCH else again


def why_unrecorded(failed: PastRun) -> str:
    """Say why what a failed run's step published is published again: by a run that takes that up, or does it again."""
    return f"again: run {failed.run_id} published it, and failed with {why_failed(failed)} before that was recorded"


def _is_duplicate(run: PastRun) -> bool:
    return run.failure_class is FailureClass.DUPLICATE_RUN


def why_not_again(runs: Sequence[PastRun], now: datetime) -> LaunchDecision | None:
    """Return why a day is not launched again after the runs for this coalescing, or None where it is."""
    runs = [run for run in runs if run.failure_class is not FailureClass.OFFSETS_LOST]
    gate_closed = [run for run in runs if run.failure_class in _NO_ATTEMPT]
    attempts = [run for run in runs if run.failure_class not in _NO_ATTEMPT]
    held = _after_attempts(attempts, now) if attempts and last_but_duplicates(runs) is attempts[-1] else None
    return held or (_after_gate_closed(gate_closed, now) if gate_closed and runs[-1] is gate_closed[-1] else None)


def _after_attempts(attempts: Sequence[PastRun], now: datetime) -> LaunchDecision | None:
    last = attempts[-1]
    if last.state is RunState.CANCELED:
        return _leave(f"run {last.run_id} was terminated: materialise it by hand")
    why = last.failure_class
    if why and not FAILURE_GUIDE[why].rerun_helps:
        # No next step of the class: the run's own, on its page and in its alert, may be another.
        return _leave(f"run {last.run_id} failed with {why}, which a re-run does not fix: its page has the next step")
    if len(attempts) >= MAX_ATTEMPTS:
        outcome = "succeeded without publishing it" if last.state is RunState.SUCCEEDED else "failed"
        return _leave(
            f"{len(attempts)} runs, the last ({last.run_id}) {outcome} ({why_failed(last)}): "
            "fix it, then materialise it"
        )
    if why in RUN_AGAIN_AT_ONCE or last.state is RunState.SUCCEEDED:
        return None
    return _wait(last, RETRY_WAIT * 2 ** (len(attempts) - 1), now)


def _after_gate_closed(runs: Sequence[PastRun], now: datetime) -> LaunchDecision | None:
    last = runs[-1]
    if len(runs) < MAX_GATE_CLOSED_RUNS:
        return _wait(last, GATE_CLOSED_WAIT * (len(runs) - 1), now)
    if _is_duplicate(last):
        return _leave(
            f"{len(runs)} runs could not begin, the last ({last.run_id}) with {last.failure_class}: its page names the "
            "one that was at work. Find out why that one does not publish the day, end it, then materialise it"
        )
    return _leave(
        f"the gate looks open from here, but {len(runs)} runs found it closed, the last ({last.run_id}) with "
        f"{last.failure_class}: check that runs have the same settings and permissions, then materialise it"
    )


def _why_lost_offsets_hold(facts: DayFacts) -> LaunchDecision | None:
    """Leave a day that lacks offsets while its listing stays as it was: any change may be the object's return."""
    run = facts.lost_offsets
    if run is None or run.listing_fingerprint != facts.listing_fingerprint:
        return None
    guidance = FAILURE_GUIDE[FailureClass.OFFSETS_LOST]
    return _leave(
        f"run {run.run_id} failed with {run.failure_class}, and the day's listing is the same. {guidance.next_step}"
    )


def _why_input_is_left(runs: Sequence[PastRun]) -> LaunchDecision | None:
    """Leave a day whose input keeps changing: each change looks like a new coalescing."""
    changed = [run for run in runs if run.failure_class is FailureClass.INPUT_CHANGED]
    if len(changed) < MAX_INPUT_CHANGES:
        return None
    return _leave(
        f"the input of {len(changed)} runs changed under them, the last is {changed[-1].run_id}. "
        f"{FAILURE_GUIDE[FailureClass.INPUT_CHANGED].next_step} Then materialise it"
    )


def why_failed(run: PastRun) -> str:
    """Return why a run did not publish, in words."""
    return run.failure_class or ("no failure" if run.state is RunState.SUCCEEDED else "a lost worker")


def _leave(reason: str) -> LaunchDecision:
    return LaunchDecision(action=LaunchAction.LEAVE, reason=reason)


def _wait(last: PastRun, wait: timedelta, now: datetime) -> LaunchDecision | None:
    retry_at = last.ended_at + wait if last.ended_at else now
    if now >= retry_at:
        return None
    reason = f"run {last.run_id} failed with {why_failed(last)}: next attempt from {retry_at:%H:%M} UTC"
    return LaunchDecision(action=LaunchAction.WAIT, reason=reason)
