"""Whether a snapshot is made now: what its sensor decides. Pure: facts in, a decision with its reason out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.failures import FailureClass
from cdi_dagster.core.launch_decision import (
    LaunchAction,
    LaunchDecision,
    PastRun,
    RunState,
    decide_unrecorded_tables,
    last_but_duplicates,
    since_person_requested,
    why_failed,
    why_not_again,
    why_unrecorded,
)
from cdi_dagster.core.snapshot import days_in_words, first_snapshot_day, is_snapshot_day


@dataclass(frozen=True, kw_only=True)
class SnapshotFacts:
    """Everything that the decision about one due snapshot depends on.

    Attributes:
        export_day: a Friday.
        is_published: whether it is there.
        published_at: when, where it is; aware, UTC.
        unrecorded: the run that made it and failed, where Dagster has no materialisation of it.
        unrecorded_tables: the same of its tables.
        is_stale: whether what is there no longer holds what its days and base would give.
        fingerprint: of what it would be made from now; None while that is not complete.
        missing_tables: names of the tables that do not show it; of the newest snapshot only, as a table shows one.
        set_back_at: when tables were last made from another snapshot, since this one appeared; aware, UTC.
        missing_days: storage days without daily rows, for which it waits.
        runs: that made it, or would have, oldest first.
        unreadable: why something of the above could not be read; then it waits.
    """

    export_day: date
    is_published: bool = False
    published_at: datetime | None = None
    unrecorded: PastRun | None = None
    unrecorded_tables: PastRun | None = None
    is_stale: bool = False
    fingerprint: str | None = None
    missing_tables: tuple[str, ...] = ()
    set_back_at: datetime | None = None
    missing_days: tuple[date, ...] = ()
    runs: tuple[PastRun, ...] = ()
    unreadable: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether it is there, holds what is published, and its tables show it."""
        return self.is_published and not self.is_stale and not self.missing_tables

    @property
    def is_live(self) -> bool:
        """Whether a run of it is queued or running."""
        return any(run.state is RunState.LIVE for run in self.runs)

    @property
    def runs_for_tables(self) -> list[PastRun]:
        """The runs that publish tables of the snapshot as it is now: they ended after it appeared, or was set back."""
        since = self.set_back_at or self.published_at
        return [
            run for run in self.runs if run.publishes_tables and not (since and run.ended_at and run.ended_at < since)
        ]

    @property
    def what_is_missing(self) -> str | None:
        """What of it is not published, in words; None where it is, stale or not."""
        if self.unreadable:
            return self.unreadable
        if self.is_published:
            tables = ", ".join(self.missing_tables)
            return f"tables ({tables}) are not published" if tables else None
        waits = f"; waits for the daily rows of {days_in_words(self.missing_days)}" if self.missing_days else ""
        return f"not published{waits}"

    @property
    def is_alerted(self) -> bool:
        """Whether on call was alerted of a run that failed, and none has succeeded since."""
        succeeded = max((number for number, run in enumerate(self.runs) if run.state is RunState.SUCCEEDED), default=-1)
        return any(run.is_alerted for run in self.runs[succeeded + 1 :])


def due_snapshots(calendar: DayCalendar, now: datetime) -> list[date]:
    """Return the export days of the snapshots whose last storage day is due, in the look-back, oldest first."""
    return _snapshots_after(calendar.sensor_days(now), calendar)


def late_snapshots(calendar: DayCalendar, now: datetime) -> list[date]:
    """Return the export days of the snapshots of the look-back that are late unless published, oldest first."""
    return _snapshots_after(calendar.late_days(now), calendar)


def _snapshots_after(storage_days: Sequence[date], calendar: DayCalendar) -> list[date]:
    first = first_snapshot_day(calendar.first_storage_day)
    return [day for day in map(export_day_of, storage_days) if is_snapshot_day(day) and day >= first]


def decide_snapshot(facts: SnapshotFacts, now: datetime) -> LaunchDecision:
    """Decide about one due snapshot: it is made once its days are there, and again where it is stale."""
    if facts.unreadable:
        return LaunchDecision(action=LaunchAction.WAIT, reason=facts.unreadable)
    live = next((run for run in facts.runs if run.state is RunState.LIVE), None)
    if live:
        return LaunchDecision(action=LaunchAction.WAIT, reason=f"run {live.run_id} is running")
    done = _decide_done(facts, now)
    if done and not (facts.unrecorded and facts.fingerprint):
        return done
    stale = "stale: rows of its days, or its base, were published again; " if facts.is_stale else ""
    if facts.fingerprint is None and not facts.missing_days:
        reason = "it would take in no day: correct CDI_FIRST_STORAGE_DAY, or choose a later Friday"
        return LaunchDecision(action=LaunchAction.WAIT, reason=f"{stale}{reason}")
    if facts.fingerprint is None:
        days = f"the daily rows of {days_in_words(facts.missing_days)}"
        return LaunchDecision(action=LaunchAction.WAIT, reason=f"{stale}waits for {days}")
    launch = f"{facts.export_day}|{facts.fingerprint}"
    counted = facts.unrecorded if done else None  # also where a person requested it, for nothing in particular
    made = [run for run in facts.runs if run.publishes_records and (run.launch == launch or run is counted)]
    runs = since_person_requested(made)
    held = why_not_again(runs, now)
    if held:
        return done if done and held.action is LaunchAction.LEAVE else held  # what is published counts
    last = last_but_duplicates(runs)
    if done and facts.unrecorded:
        reason = why_unrecorded(facts.unrecorded)
    elif last:
        reason = f"again: run {last.run_id} failed with {why_failed(last)}"
    else:
        reason = f"{stale}its days are there"
    return LaunchDecision(action=LaunchAction.LAUNCH, reason=reason, launch=launch, attempt=len(facts.runs) + 1)


def _decide_done(facts: SnapshotFacts, now: datetime) -> LaunchDecision | None:
    """Decide about a snapshot that is as it should be; None where it is not."""
    if facts.is_done and facts.unrecorded_tables:
        again = _decide_tables(facts, "published", now)
        return decide_unrecorded_tables(facts.unrecorded_tables, again, "published")
    if facts.is_done:
        return LaunchDecision(action=LaunchAction.DONE, reason="published")
    if not facts.is_published or facts.is_stale:
        return None
    tables = ", ".join(facts.missing_tables)
    missing = f"{FailureClass.TABLES_MISSING}: the snapshot is published, tables ({tables}) are not"
    return _decide_tables(facts, missing, now)


def _decide_tables(facts: SnapshotFacts, missing: str, now: datetime) -> LaunchDecision:
    runs = since_person_requested(facts.runs_for_tables)
    held = why_not_again(runs, now)
    if held:
        return replace(held, reason=f"{missing}: {held.reason}")
    launch = f"{facts.export_day}|{facts.fingerprint}"
    attempt = len(facts.runs) + 1
    return LaunchDecision(action=LaunchAction.LAUNCH, reason=missing, launch=launch, attempt=attempt, tables_only=True)


def to_launch(decisions: Sequence[tuple[SnapshotFacts, LaunchDecision]]) -> tuple[SnapshotFacts, LaunchDecision] | None:
    """Return the one to launch in this tick: the oldest; none while an older one, which is its base, is being made."""
    for facts, decision in decisions:
        if decision.action is LaunchAction.LAUNCH:
            return facts, decision
        if facts.is_live:
            return None
    return None


def leaves_tables(export_day: date, all_facts: Iterable[SnapshotFacts]) -> bool:
    """Whether a run of a snapshot leaves the tables alone: a newer one is there, or being made, and they show that."""
    return any(facts.export_day > export_day and (facts.is_published or facts.is_live) for facts in all_facts)
