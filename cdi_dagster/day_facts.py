"""Reading the facts for a decision: the gate, what is published of records and tables, the run records of each day.

And of each snapshot. Schedules and sensors use it. "Could not read" becomes a fact of the day, and the day waits; a
damaged mark is another, as it stays so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.launch_decision import DayFacts, PastRun, RunState, last_but_duplicates
from cdi_dagster.core.listing import listing_fingerprint
from cdi_dagster.core.snapshot_decision import SnapshotFacts, due_snapshots
from cdi_dagster.interfaces import CoalescerStatusSource
from cdi_dagster.published.read import origin_of, read_mark
from cdi_dagster.published.snapshot_facts import read_snapshot
from cdi_dagster.published.snapshots import snapshot_of
from cdi_dagster.published.tables import missing_tables, newest_report
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
    whose last run failed some more.
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
        facts = replace(facts, runs=runs[export_day])
        made_by = mark.correlation_id if mark else None
        snapshot = _unrecorded(instance, facts.runs, export_day, made_by, [names.snapshot_key(collection)])
        facts = replace(facts, unrecorded=snapshot)
        if [export_day] == newest and facts.is_done:
            day, keys = snapshot_of(collection, export_day), names.snapshot_table_keys(collection)
            try:
                tables = _unrecorded_tables(instance, facts.runs, export_day, published, day, keys)
                facts = replace(facts, unrecorded_tables=tables)
            except StorageError as error:
                facts = replace(facts, unreadable=f"could not be read: {error}")
        found.append(facts)
    return found


def _facts(
    instance: dg.DagsterInstance,
    day: CollectionDay,
    runs: tuple[PastRun, ...],
    coalescer_status: CoalescerStatusSource,
    roots: Roots,
) -> DayFacts:
    published_from, unreadable, damaged = None, None, None
    missing: tuple[str, ...] = ()
    records, tables = None, None
    try:
        mark = read_mark(roots.published, day)
        if mark:
            published_from = origin_of(mark)
            missing = missing_tables(roots.published, day, mark)
            key = names.daily_records_key(day.collection)
            records = _unrecorded(instance, runs, day.storage_day, mark.correlation_id, [key])
        if mark and not missing:
            keys = names.table_keys(day.collection)
            tables = _unrecorded_tables(instance, runs, day.storage_day, roots.published, day, keys)
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
        unrecorded=records,
        unrecorded_tables=tables,
        unreadable=unreadable,
        damaged=damaged,
    )
    if facts.needs_listing:
        try:
            listing = roots.corporate.list(day.corporate_prefix)
            return replace(facts, listing_fingerprint=listing_fingerprint(listing))
        except StorageError as error:
            return replace(facts, unreadable=f"the day could not be listed: {error}")
    return facts


def _unrecorded(
    instance: dg.DagsterInstance,
    runs: Sequence[PastRun],
    partition: date,
    published_by: str | None,
    keys: Iterable[dg.AssetKey],
) -> PastRun | None:
    """Return the run that published something and failed, where Dagster lacks a materialisation of it since it began.

    Its step, on a cluster, may have outlived it. Not a run that gave way: it published nothing, and its other worker,
    of the same id, is at work. Nor one that a person configured: nobody could repeat it.
    """
    published = (
        run
        for run in runs
        if run.run_id == published_by
        and run.state is RunState.FAILED
        and run.failure_class is not FailureClass.DUPLICATE_RUN
        and not run.is_configured
    )
    failed = next(published, None)
    if failed and all(is_materialised_since(instance, key, partition, failed.started_at) for key in keys):
        return None
    return failed


def _unrecorded_tables(
    instance: dg.DagsterInstance,
    runs: Sequence[PastRun],
    partition: date,
    published: Storage,
    day: CollectionDay,
    keys: Iterable[dg.AssetKey],
) -> PastRun | None:
    """Return the same of tables. Read only where their last run failed."""
    last = last_but_duplicates([run for run in runs if run.publishes_tables])
    if last is None or last.state is not RunState.FAILED:
        return None
    report = newest_report(published, day)
    if report is None:
        return None
    made = {table.name.rpartition(".")[2] for table in report.tables}
    return _unrecorded(instance, runs, partition, report.correlation_id, [key for key in keys if key.path[-1] in made])
