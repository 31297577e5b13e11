"""Which tables of a day show its published records, by the closing reports of the runs that published tables.

The job writes its report when everything that it was to publish is there, so the report is the proof; the metastore is
not read. What was made by an earlier version is known by its reports too.
"""

import json

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.storage_keys import is_tables_report_key, runs_prefix
from cdi_dagster.core.tables_report import TablesReport
from cdi_dagster.published.mark import Mark
from cdi_dagster.published.read import read_mark
from cdi_dagster.storage import ObjectMissingError, Storage


def is_whole(published: Storage, day: CollectionDay) -> bool:
    """Whether a day is published: its records, and every table that is defined.

    Raises:
        CdiError: INPUT_INVALID where the mark of the records cannot be read.
        StorageError: the storage does not respond.
    """
    mark = read_mark(published, day)
    return mark is not None and not missing_tables(published, day, mark)


def missing_tables(published: Storage, day: CollectionDay, mark: Mark) -> tuple[str, ...]:
    """Return the names of the tables that do not show the published records; none where no table is defined.

    Which tables a day has is decided by the definition with which they were made: another definition alone does not
    reopen a day. Costs one listing, and mostly one read.

    Args:
        published: where reports and records are.
        day: whose tables.
        mark: of the published records.

    Raises:
        StorageError: the storage does not respond.
    """
    defined = day.collection.table_names
    if not defined:
        return ()
    listing = (stored for stored in published.list(runs_prefix(day)) if is_tables_report_key(stored.key))
    newest_first = sorted(listing, key=lambda stored: (stored.modified_at, stored.key), reverse=True)
    shows: dict[str, bool] = {}
    for stored in newest_first:
        report = _read(published, stored.key)
        if report is None:
            continue
        if not shows:
            defined = report.defined or defined
        # A replay of rejects adds records of the same input.
        made_from_these = (report.fingerprint, report.records) == (mark.fingerprint, mark.published)
        for table in report.tables:
            shows.setdefault(table.name, made_from_these)
        if shows.keys() >= set(defined):
            break
    return tuple(name for name in defined if not shows.get(name))


def _read(published: Storage, key: str) -> TablesReport | None:
    """Return a report; None where it is gone or cannot be read as one, which proves nothing."""
    try:
        return TablesReport.from_json(json.loads(published.read(key)))
    except (ObjectMissingError, AttributeError, KeyError, TypeError, ValueError):
        return None
