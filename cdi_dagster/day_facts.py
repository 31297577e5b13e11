"""Reading the facts for a decision: the gate, what is published of records and tables, the run records of each day.

And of each snapshot. Schedules and sensors use it. "Could not read" becomes a fact of the day, and the day waits; a
damaged mark is another, as it stays so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.launch_decision import DayFacts, PastRun, RunState, last_but_duplicates
from cdi_dagster.core.listing import listing_fingerprint
from cdi_dagster.core.snapshot_decision import SnapshotFacts, due_snapshots
from cdi_dagster.interfaces import CoalescerStatusSource
from cdi_dagster.published.read import origin_of, read_mark
from cdi_dagster.published.snapshot_facts import read_snapshot
from cdi_dagster.published.snapshots import snapshot_of
from cdi_dagster.published.tables import missing_tables, tables_made_by
from cdi_dagster.run_records import is_materialised_since, past_runs, past_snapshot_runs
from cdi_dagster.storage.interface import Storage, StorageError
from cdi_dagster.storage.roots import Roots


def read_day_facts(
    instance: dg.DagsterInstance,
    collection: Collection,
    storage_days: Sequence[date],
    *,
    coalescer_status: CoalescerStatusSource,
    roots: Roots,
) -> list[DayFacts]:
    """Return the facts of each day, in the order given.

    Costs one query of run records, and for each day its status, its mark, and which tables show its records; for one
    whose publisher failed another query.
    """
    # Run records before marks: a run that ends in between is seen as running, and its day waits. The other way round
    # it would be seen as ended, and its day as unpublished.
    runs = past_runs(instance, collection, storage_days)
    return [
        _facts(instance, collection.on(storage_day), runs[storage_day], coalescer_status, roots)
        for storage_day in storage_days
    ]


def read_snapshot_facts(
    instance: dg.DagsterInstance,
    collection: Collection,
    export_days: Sequence[date],
    *,
    published: Storage,
    calendar: DayCalendar,
    now: datetime,
) -> list[SnapshotFacts]:
    """Return the facts of a keyed collection's snapshots, in the order given; else as `read_day_facts`."""
    runs = past_snapshot_runs(instance, collection, export_days)
    newest = due_snapshots(calendar, now)[-1:]
    found = []
    for export_day in export_days:
        facts, mark = read_snapshot(
            published, collection, export_day, calendar.first_storage_day, tables=[export_day] == newest
        )
        ran = _Ran(instance, snapshot_of(collection, export_day), export_day, runs[export_day])
        facts = replace(
            facts,
            runs=ran.runs,
            unrecorded=ran.unrecorded([names.snapshot_key(collection)], mark.correlation_id if mark else None),
        )
        if [export_day] == newest and facts.is_done:
            tables = ran.unrecorded_tables(names.snapshot_table_keys(collection), published)
            facts = replace(facts, unrecorded_tables=tables)
        found.append(facts)
    return found


@dataclass(frozen=True)
class _Ran:
    """The runs of one partition, and what Dagster has recorded of what they published.

    Attributes:
        instance: whose records.
        day: what they are about.
        partition: of their assets: the storage day, or the export day of a snapshot.
        runs: oldest first.
    """

    instance: dg.DagsterInstance
    day: CollectionDay
    partition: date
    runs: tuple[PastRun, ...]

    def unrecorded(self, keys: Iterable[dg.AssetKey], published_by: str | None) -> PastRun | None:
        """Return the run that published something, where it failed and none of it is materialised since it began.

        Its step, on a cluster, may have outlived it.
        """
        published = (run for run in self.runs if run.run_id == published_by and run.state is RunState.FAILED)
        failed = next(published, None)
        if failed is None or any(
            is_materialised_since(self.instance, key, self.partition, failed.started_at) for key in keys
        ):
            return None
        return failed

    def unrecorded_tables(self, keys: Iterable[dg.AssetKey], published: Storage) -> PastRun | None:
        """Return the run that published the tables, where that is so of them. Read only where the last run failed."""
        last = last_but_duplicates([run for run in self.runs if run.publishes_tables])
        if last is None or last.state is not RunState.FAILED:
            return None
        try:
            return self.unrecorded(keys, tables_made_by(published, self.day))
        except StorageError:  # the next tick looks again
            return None


def _facts(
    instance: dg.DagsterInstance,
    day: CollectionDay,
    runs: tuple[PastRun, ...],
    coalescer_status: CoalescerStatusSource,
    roots: Roots,
) -> DayFacts:
    published_from, unreadable, damaged = None, None, None
    missing: tuple[str, ...] = ()
    try:
        mark = read_mark(roots.published, day)
        if mark:
            published_from = origin_of(mark)
            missing = missing_tables(roots.published, day, mark)
    except CdiError as error:
        damaged = error
    except StorageError as error:
        unreadable = f"what is published could not be read: {error}"
    facts = DayFacts(
        storage_day=day.storage_day,
        coalescer=coalescer_status.status(day),
        published_from=published_from,
        runs=runs,
        missing_tables=missing,
        unreadable=unreadable,
        damaged=damaged,
    )
    if published_from:
        ran = _Ran(instance, day, day.storage_day, runs)
        records = ran.unrecorded([names.daily_records_key(day.collection)], published_from.run_id)
        facts = replace(facts, unrecorded=records)
        if not missing:
            tables = ran.unrecorded_tables(names.table_keys(day.collection), roots.published)
            facts = replace(facts, unrecorded_tables=tables)
    if facts.needs_listing:
        try:
            listing = roots.corporate.list(day.corporate_prefix)
            return replace(facts, listing_fingerprint=listing_fingerprint(listing))
        except StorageError as error:
            return replace(facts, unreadable=f"the day could not be listed: {error}")
    return facts
