"""Which tables of a day show its published records, by the closing reports of the runs that published tables.

The job writes its report when everything that it was to publish is there, so the report is the proof; the metastore is
not read. What was made by an earlier version is known by its reports too.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.snapshot import snapshot_days
from cdi_dagster.core.storage_keys import is_tables_report_key, runs_prefix
from cdi_dagster.core.tables_report import PublishedTable, TablesReport
from cdi_dagster.published.mark import Mark
from cdi_dagster.published.read import read_mark
from cdi_dagster.published.snapshot_mark import SnapshotMark
from cdi_dagster.published.snapshots import MOST_WEEKS, snapshot_of
from cdi_dagster.storage import ObjectMissingError, Storage


def is_whole(published: Storage, day: CollectionDay) -> bool:
    """Whether a day is published: its records, and every table that is defined.

    Raises:
        CdiError: INPUT_INVALID where the mark of the records cannot be read.
        StorageError: the storage does not respond.
    """
    mark = read_mark(published, day)
    return mark is not None and not missing_tables(published, day, mark)


def missing_tables(published: Storage, day: CollectionDay, mark: Mark | SnapshotMark) -> tuple[str, ...]:
    """Return the names of the tables that do not show the published records; none where no table is defined.

    Which tables a day has is decided by the definition with which they were made: another definition alone does not
    reopen a day. Costs one listing, and mostly one read.

    A table of snapshots has no partitions: it shows what was published to it last, of whichever Friday. So the reports
    of earlier Fridays count too, for a listing each.

    Args:
        published: where reports and records are.
        day: whose tables.
        mark: of the published records, or of the snapshot of the day's export day.

    Raises:
        StorageError: the storage does not respond.
    """
    of_snapshot = isinstance(mark, SnapshotMark)
    defined = day.collection.snapshot_table_names if of_snapshot else day.collection.table_names
    if not defined:
        return ()
    shows: dict[str, bool] = {}
    for _, report in _newest_first(published, _fridays_until(day) if of_snapshot else [day]):
        if not shows:
            defined = report.defined or defined
        made_from_these = _made_from(report, mark)
        for table in report.tables:
            shows.setdefault(table.name, made_from_these)
        if shows.keys() >= set(defined):
            break
    return tuple(name for name in defined if not shows.get(name))


def shown_tables(
    published: Storage, day: CollectionDay, *, snapshot: SnapshotMark | None = None
) -> tuple[PublishedTable, ...]:
    """Return the tables that show the published records, each as it was last made; none where nothing is published.

    Args:
        published: where reports and records are.
        day: whose tables.
        snapshot: mark of the snapshot of the day's export day, for the tables that were made from that.

    Raises:
        CdiError: INPUT_INVALID where the mark of the records cannot be read.
        StorageError: the storage does not respond.
    """
    mark = snapshot or read_mark(published, day)
    last_made: dict[str, PublishedTable | None] = {}
    for _, report in _newest_first(published, [day]) if mark else ():
        for table in report.tables:
            last_made.setdefault(table.name, table if mark and _made_from(report, mark) else None)
    return tuple(table for table in last_made.values() if table)


def newest_report(published: Storage, day: CollectionDay) -> TablesReport | None:
    """Return the report of the run that made tables of a day last; None where none did.

    Raises:
        StorageError: the storage does not respond.
    """
    return next((report for _, report in _newest_first(published, [day])), None)


def _fridays_until(day: CollectionDay) -> list[CollectionDay]:
    return [snapshot_of(day.collection, friday) for friday in snapshot_days(day.export_day, weeks=MOST_WEEKS)]


def set_back_at(published: Storage, day: CollectionDay, mark: SnapshotMark) -> datetime | None:
    """Return when tables were last made from another snapshot than that of a mark; None where not since it appeared.

    Raises:
        StorageError: the storage does not respond.
    """
    for made_at, report in _newest_first(published, _fridays_until(day)):
        if made_at < mark.published_at:
            return None
        if not _made_from(report, mark):
            return made_at
    return None


def _newest_first(published: Storage, days: Sequence[CollectionDay]) -> Iterator[tuple[datetime, TablesReport]]:
    stored_of_days = (stored for day in days for stored in published.list(runs_prefix(day)))
    reports = (stored for stored in stored_of_days if is_tables_report_key(stored.key))
    for stored in sorted(reports, key=lambda stored: (stored.modified_at, stored.key), reverse=True):
        report = _read(published, stored.key)
        if report:
            yield stored.modified_at, report


def _made_from(report: TablesReport, mark: Mark | SnapshotMark) -> bool:
    # A replay of rejects adds records of the same input.
    return (report.fingerprint, report.records) == (mark.fingerprint, mark.published)


def _read(published: Storage, key: str) -> TablesReport | None:
    """Return a report; None where it is gone or cannot be read as one, which proves nothing."""
    try:
        return TablesReport.from_json(json.loads(published.read(key)))
    except (ObjectMissingError, AttributeError, KeyError, TypeError, ValueError):
        return None
