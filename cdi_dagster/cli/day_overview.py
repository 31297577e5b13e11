"""The state of a storage day for a person: published, being worked on, waiting or failed, and by which run.

From marks and run folders in storage, status rows, and Dagster's run records where there are any. Only reads.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from cdi_dagster.cli.dagster_runs import DagsterRuns, open_dagster_runs
from cdi_dagster.cli.gate import coalescer_status
from cdi_dagster.cli.run_seen import RunSeen, run_of_dagster, seconds_between
from cdi_dagster.clock import utc_now
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.days import due_at
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.gate import class_of
from cdi_dagster.core.launch_decision import (
    DayFacts,
    LaunchAction,
    LaunchDecision,
    PastRun,
    RunState,
    decide,
)
from cdi_dagster.core.listing import listing_fingerprint
from cdi_dagster.core.snapshot import is_snapshot_day
from cdi_dagster.core.status_rows import StatusRow, StatusTable, data_product_of
from cdi_dagster.core.storage_keys import ingestion_lease_key, run_failure_key, run_report_key
from cdi_dagster.core.tables_report import PublishedTable
from cdi_dagster.published.mark import Mark
from cdi_dagster.published.read import origin_of, read_mark
from cdi_dagster.published.runs import last_run
from cdi_dagster.published.tables import missing_tables, shown_tables
from cdi_dagster.resources.status_table import open_status_table
from cdi_dagster.settings import Settings
from cdi_dagster.storage import ObjectMissingError, Roots
from cdi_dagster.storage.lease import live_holder


class DayState(StrEnum):
    """What is the matter with a day; decides the exit code."""

    PUBLISHED = "published"
    """Records and tables, and nothing is to be done again."""
    RUNNING = "running"
    WAITING = "waiting"
    FAILED = "failed"
    """A person has to act: nothing runs the day again by itself."""


@dataclass(frozen=True, kw_only=True)
class DayOverview:
    """The state of a day.

    Attributes:
        day: which collection and storage day.
        state: in one word.
        reason: in a sentence.
        waits_for: the class of what the day waits for, where it waits.
        last_run: the run that was active last.
        records: published, where they are.
        rejects: of the publication; of the last run where nothing is published.
        rejected_by_reason: the same, by reason.
        tables: those that show the published records.
        seconds: of the run that published the records, or of the last one.
        cost_usd: estimated, of the same run; None where nothing was paid for or it is not known.
    """

    day: CollectionDay
    state: DayState
    reason: str
    waits_for: FailureClass | None = None
    last_run: RunSeen | None = None
    records: int | None = None
    rejects: int | None = None
    rejected_by_reason: Mapping[str, int] = field(default_factory=dict)
    tables: tuple[PublishedTable, ...] = ()
    seconds: float | None = None
    cost_usd: float | None = None

    @property
    def run_at_work(self) -> RunSeen | None:
        """The run that works on the day, or waits in the queue."""
        return self.last_run if self.last_run and self.last_run.state is RunState.LIVE else None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "collection": self.day.collection.id,
            "storage_day": self.day.storage_day,
            "export_day": self.day.export_day,
            "state": self.state,
            "reason": self.reason,
            "waits_for": self.waits_for,
            "last_run": self.last_run and self.last_run.to_json(),
            "run_at_work": self.run_at_work and self.run_at_work.run_id,
            "records": self.records,
            "rejects": self.rejects,
            "rejected_by_reason": dict(self.rejected_by_reason),
            "tables": {table.name: table.rows for table in self.tables},
            "seconds": self.seconds,
            "cost_usd": self.cost_usd,
        }


class DayOverviews:
    """Makes overviews.

    Args:
        settings: of the installation.
        roots: where days are.
        status_table: whose rows have causes and costs.
        dagster_runs: of this machine's Dagster.
        now: aware.

    Attributes:
        dagster_runs: as given.
    """

    def __init__(
        self, settings: Settings, roots: Roots, status_table: StatusTable, dagster_runs: DagsterRuns, now: datetime
    ) -> None:
        self._settings = settings
        self._roots = roots
        self._status_table = status_table
        self.dagster_runs = dagster_runs
        self._now = now
        self._rows_unreadable: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be read: runs, or status rows and so costs."""
        return tuple(note for note in (self.dagster_runs.note, self._rows_unreadable) if note)

    def of(self, collection: Collection, storage_days: Sequence[date]) -> list[DayOverview]:
        """Return the overview of each day.

        Raises:
            StorageError: the storage does not respond.
        """
        runs = self.dagster_runs.past_runs(collection, storage_days)  # before the marks, as `day_facts` does
        automation = Automation(calendar=self._settings.calendar, is_on=self.dagster_runs.is_automated(collection))
        return [self._of_day(collection.on(day), runs[day], automation) for day in storage_days]

    def _of_day(self, day: CollectionDay, past: tuple[PastRun, ...], automation: Automation) -> DayOverview:
        try:
            mark = read_mark(self._roots.published, day)
            missing = missing_tables(self._roots.published, day, mark) if mark else ()
        except CdiError as error:
            return DayOverview(day=day, state=DayState.FAILED, reason=str(error), waits_for=error.failure_class)
        last = self._last_run(day, past)
        facts = self._facts(day, past, mark, missing)
        decision = decide(facts, self._now)
        automated = automation.launches(day.storage_day, past, self._now)
        state = self._state(facts, decision, last, automated=automated)
        of_run = mark.correlation_id if mark else last.run_id if last else None
        row, report = self._row(day, of_run), self._report(day, of_run)
        totals = report.get("totals", {})
        publisher = next((run for run in past if mark and run.run_id == mark.correlation_id), None)
        seconds = last.seconds if last and not mark else None
        if publisher:
            seconds = seconds_between(publisher.started_at, publisher.ended_at)
        return DayOverview(
            day=day,
            state=state,
            reason=self._reason(state, decision, last, automated=automated),
            waits_for=_waits_for(facts) if state is DayState.WAITING else None,
            last_run=last,
            records=mark.published if mark else None,
            rejects=mark.rejected if mark else totals.get("rejected"),
            rejected_by_reason=totals.get("rejected_by_reason", {}),
            tables=shown_tables(self._roots.published, day) if mark and day.collection.tables else (),
            seconds=seconds if seconds is not None else report.get("seconds"),
            cost_usd=_cost(row),
        )

    def _facts(
        self, day: CollectionDay, past: tuple[PastRun, ...], mark: Mark | None, missing: tuple[str, ...]
    ) -> DayFacts:
        facts = DayFacts(
            storage_day=day.storage_day,
            coalescer=coalescer_status(self._settings, self._roots, day),
            published_from=origin_of(mark) if mark else None,
            runs=past,
            missing_tables=missing,
        )
        if not facts.needs_listing:
            return facts
        listing = self._roots.corporate.list(day.corporate_prefix)
        return replace(facts, listing_fingerprint=listing_fingerprint(listing))

    def _state(self, facts: DayFacts, decision: LaunchDecision, last: RunSeen | None, *, automated: bool) -> DayState:
        if last and last.state is RunState.LIVE:
            return DayState.RUNNING
        whole = facts.published_from is not None and not facts.missing_tables
        if whole and decision.action in (LaunchAction.DONE, LaunchAction.WAIT):
            return DayState.PUBLISHED
        if decision.action is LaunchAction.LEAVE:
            return DayState.FAILED
        if last is None or last.state is RunState.SUCCEEDED:
            return DayState.WAITING
        return DayState.WAITING if automated else DayState.FAILED

    def _reason(self, state: DayState, decision: LaunchDecision, last: RunSeen | None, *, automated: bool) -> str:
        if state is DayState.RUNNING and last:
            begun = f"since {last.started_at:%Y-%m-%d %H:%M} UTC" if last.started_at else "not started yet"
            return f"run {last.run_id} is at work, {begun}"
        if state is DayState.FAILED and last:
            if last.failure:
                return str(last.failure)
            return f"run {last.run_id} was terminated" if last.state is RunState.CANCELED else decision.reason
        if state is DayState.WAITING and decision.action is LaunchAction.LAUNCH:
            by = "the sensor launches it" if automated else "nothing launches it by itself: materialise it"
            return f"{decision.reason}; {by}"
        return decision.reason

    def _last_run(self, day: CollectionDay, past: Sequence[PastRun]) -> RunSeen | None:
        at_work = next((run for run in reversed(past) if run.state is RunState.LIVE), None)
        newest = at_work or max(past, key=lambda run: run.ended_at or self._now, default=None)
        stored = None if at_work else self._last_stored_run(day, known={run.run_id for run in past})
        if newest is None or (stored and (stored.ended_at is None or stored.ended_at > (newest.ended_at or self._now))):
            return stored
        row = self._row(day, newest.run_id)
        return run_of_dagster(newest, self.dagster_runs, self._settings, row_failure=row.failure if row else None)

    def _last_stored_run(self, day: CollectionDay, *, known: set[str]) -> RunSeen | None:
        """Return the last run that left something in storage, or holds the lease, and is none of Dagster's."""
        holder = self._lease_holder(day)
        if holder and holder[0] not in known:
            return RunSeen(run_id=holder[0], state=RunState.LIVE, started_at=holder[1])
        last = last_run(self._roots.published, day, leave_out=lambda run_id: self._made_snapshot(day, run_id))
        if last is None or last[0] in known:
            return None
        run_id, written_at = last
        failure = self._stored_failure(day, run_id)
        state = RunState.FAILED if failure else RunState.SUCCEEDED
        return RunSeen(run_id=run_id, state=state, failure=failure, ended_at=written_at)

    def _made_snapshot(self, day: CollectionDay, run_id: str) -> bool:
        """Whether a run was one of the snapshot that has the export day in common with the day, and so its folder."""
        row = self._row(day, run_id) if day.collection.is_keyed and is_snapshot_day(day.export_day) else None
        return row is not None and row.snapshot_prefix is not None

    def _stored_failure(self, day: CollectionDay, run_id: str) -> CdiError | None:
        if value := self._json(run_failure_key(day, run_id)):
            return CdiError.from_json(value)
        row = self._row(day, run_id)
        if row is None or row.status != "FAILED":
            return None
        named, _, cause = (row.failure or "").partition(": ")
        known = named in FailureClass.__members__
        return CdiError(
            FailureClass(named) if known else FailureClass.JOB_FAILED, cause if known else row.failure or ""
        )

    def _lease_holder(self, day: CollectionDay) -> tuple[str, datetime | None] | None:
        """Return run id and time of the holder of the ingestion lease, where its heart beats."""
        held = live_holder(self._roots.published, ingestion_lease_key(day), self._now)
        if held is None:
            return None
        holder, taken_at = held
        since = None
        with suppress(ValueError):
            since = datetime.fromisoformat(taken_at).astimezone(UTC)
        return holder, since

    def _report(self, day: CollectionDay, run_id: str | None) -> Mapping[str, Any]:
        return self._json(run_report_key(day, run_id)) or {} if run_id else {}

    def _json(self, key: str) -> dict[str, Any] | None:
        """Return a small JSON object; None where it is not there, or is none."""
        try:
            value = json.loads(self._roots.published.read(key))
        except (ObjectMissingError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def _row(self, day: CollectionDay, run_id: str | None) -> StatusRow | None:
        """Return a run's status row; None where there is none, or the table cannot be read from here."""
        if run_id is None or self._rows_unreadable:
            return None
        try:
            return self._status_table.get(run_id, data_product_of(day.collection))
        except CdiError as error:
            self._rows_unreadable = error.cause
            return None


@contextmanager
def open_day_overviews(settings: Settings, roots: Roots) -> Iterator[DayOverviews]:
    """Yield what makes overviews of days, by the status table and the Dagster of the settings."""
    with open_dagster_runs(settings) as dagster_runs:
        yield DayOverviews(settings, roots, open_status_table(settings), dagster_runs, utc_now())


def is_due(overview: DayOverview, settings: Settings, now: datetime) -> bool:
    """Whether the day counts for the exit code of the table of all days."""
    return now >= due_at(overview.day.storage_day, settings.due_time)


def _waits_for(facts: DayFacts) -> FailureClass | None:
    if facts.lacks_tables:
        return FailureClass.TABLES_MISSING
    return class_of(facts.coalescer)


def _cost(row: StatusRow | None) -> float | None:
    costs = list(_costs(row.detail)) if row else []
    return round(sum(costs), 4) if costs else None


def _costs(detail: Mapping[str, Any]) -> Iterator[float]:
    for name in ("attempts", "table_attempts"):
        for attempt in detail.get(name, ()):
            if attempt.get("estimated_cost_usd"):
                yield float(attempt["estimated_cost_usd"])
