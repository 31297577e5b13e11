"""Which run of a day last wrote something about itself, where Dagster does not know it."""

from datetime import datetime

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.storage_keys import runs_prefix
from cdi_dagster.storage import Storage


def last_run(published: Storage, day: CollectionDay, *, wrote: str = "") -> tuple[str, datetime] | None:
    """Return the id of the run that wrote last, and when (aware, UTC); None where none did.

    Args:
        published: the published root.
        day: of which collection and storage day.
        wrote: only objects count whose path in the run's folder begins so.

    Raises:
        StorageError: the storage does not respond.
    """
    prefix = runs_prefix(day)
    last: tuple[str, datetime] | None = None
    for stored in published.list(prefix):
        run_id, _, path = stored.key.removeprefix(prefix).partition("/")
        if path.startswith(wrote) and (last is None or stored.modified_at > last[1]):
            last = run_id, stored.modified_at
    return last
