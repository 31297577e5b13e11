"""Which run of a day last wrote something about itself, where Dagster does not know it."""

from collections.abc import Callable
from datetime import datetime

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.storage_keys import runs_prefix
from cdi_dagster.storage import Storage


def last_run(
    published: Storage, day: CollectionDay, *, wrote: str = "", leave_out: Callable[[str], bool] = lambda _run_id: False
) -> tuple[str, datetime] | None:
    """Return the id of the run that wrote last, and when (aware, UTC); None where none did.

    Args:
        published: the published root.
        day: of which collection and storage day.
        wrote: only objects count whose path in the run's folder begins so.
        leave_out: whether a run, by its id, does not count.

    Raises:
        StorageError: the storage does not respond.
    """
    prefix = runs_prefix(day)
    wrote_at: dict[str, datetime] = {}
    for stored in published.list(prefix):
        run_id, _, path = stored.key.removeprefix(prefix).partition("/")
        if path.startswith(wrote):
            wrote_at[run_id] = max(stored.modified_at, wrote_at.get(run_id, stored.modified_at))
    newest_first = sorted(wrote_at.items(), key=lambda run: run[1], reverse=True)
    return next((run for run in newest_first if not leave_out(run[0])), None)
