"""Reading the facts for a decision about a snapshot: its mark, those before it, the rows of its days, its tables."""

from datetime import date

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.snapshot import snapshot_input, stale_snapshots
from cdi_dagster.core.snapshot_decision import SnapshotFacts
from cdi_dagster.published.snapshot_mark import SnapshotMark
from cdi_dagster.published.snapshots import read_input_now, snapshot_of
from cdi_dagster.published.tables import missing_tables, set_back_at
from cdi_dagster.storage.interface import Storage, StorageError

_WEEKS = 3
"""The marks of so many snapshots are read, each of some MB in production; of more only where none can be the base."""


def read_snapshot(
    published: Storage, collection: Collection, export_day: date, first_storage_day: date, *, tables: bool
) -> tuple[SnapshotFacts, SnapshotMark | None]:
    """Return what storage holds of a snapshot, without its runs, and its mark; what cannot be read is a fact too.

    Args:
        published: where it is read.
        collection: whose snapshot.
        export_day: a Friday.
        first_storage_day: of the collection.
        tables: whether its tables are looked at: those of the newest snapshot, as a table shows one.
    """
    try:
        now = read_input_now(published, collection, export_day, first_storage_day=first_storage_day, weeks=_WEEKS)
        mark = now.snapshots.get(export_day)
        day = snapshot_of(collection, export_day)
        missing_of = missing_tables(published, day, mark) if mark and tables else ()
        back_at = set_back_at(published, day, mark) if mark and missing_of else None
    except (CdiError, StorageError) as error:
        return SnapshotFacts(export_day=export_day, unreadable=f"could not be read: {error}"), None
    fingerprint: str | None = None
    missing: tuple[date, ...] = ()
    try:
        used = snapshot_input(collection, export_day, now.made, now.identities, first_storage_day=first_storage_day)
        fingerprint = used.fingerprint
    except CdiError as error:
        missing = tuple(map(date.fromisoformat, error.detail.get("missing_days", ())))
    facts = SnapshotFacts(
        export_day=export_day,
        is_published=mark is not None,
        published_at=mark.published_at if mark else None,
        is_stale=export_day in stale_snapshots(now.made, now.identities),
        fingerprint=fingerprint,
        missing_tables=missing_of,
        set_back_at=back_at,
        missing_days=missing,
    )
    return facts, mark
