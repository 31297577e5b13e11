"""Reading the facts for a decision: the gate, what is published of records and tables, the run records of each day.

And of each snapshot. Schedules and sensors use it. "Could not read" becomes a fact of the day, and the day waits; a
damaged mark is another, as it stays so.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.launch_decision import DayFacts, PastRun
from cdi_dagster.core.listing import listing_fingerprint
from cdi_dagster.core.snapshot_decision import SnapshotFacts, due_snapshots
from cdi_dagster.interfaces import CoalescerStatusSource
from cdi_dagster.published.read import origin_of, read_mark
from cdi_dagster.published.snapshot_facts import read_snapshot
from cdi_dagster.published.tables import missing_tables
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
        facts, _ = read_snapshot(
            published, collection, export_day, calendar.first_storage_day, tables=[export_day] == newest
        )
        facts = replace(facts, runs=runs[export_day])
        if failed := facts.failed_publisher:
            is_recorded = is_materialised_since(instance, names.snapshot_key(collection), export_day, failed)
            facts = replace(facts, is_unrecorded=not is_recorded)
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
    if failed := facts.failed_publisher:
        key = names.daily_records_key(day.collection)
        is_recorded = is_materialised_since(instance, key, day.storage_day, failed)
        facts = replace(facts, is_unrecorded=not is_recorded)
    if facts.needs_listing:
        try:
            listing = roots.corporate.list(day.corporate_prefix)
            return replace(facts, listing_fingerprint=listing_fingerprint(listing))
        except StorageError as error:
            return replace(facts, unreadable=f"the day could not be listed: {error}")
    return facts
