"""The progress of a day: whether its pin, its records and its tables are there, and up to date. No dagster."""

from dataclasses import dataclass
from itertools import islice

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.listing import listing_fingerprint
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.ingestion.pinning import read_pinned_input
from cdi_dagster.published.read import read_mark, read_published_input
from cdi_dagster.published.tables import missing_tables
from cdi_dagster.storage.interface import Storage
from cdi_dagster.storage.roots import Roots


@dataclass(frozen=True, kw_only=True)
class DayProgress:
    """The progress of a day.

    Attributes:
        pinned: whether a run has decided what to read.
        pinned_is_current: whether the pin matches the objects that are there now.
        published: whether daily records are published.
        published_is_current: whether they were made from the objects that are there now.
        published_records: how many, where published.
        has_tables: whether any table is defined for the collection.
        missing_tables: names of those that do not show the published records.
        is_whole: whether records are published and every table shows them.
    """

    pinned: bool
    pinned_is_current: bool
    published: bool
    published_is_current: bool
    published_records: int | None
    has_tables: bool
    missing_tables: tuple[str, ...]
    is_whole: bool


def day_progress(roots: Roots, day: CollectionDay, *, fingerprint: str | None) -> DayProgress:
    """Read the progress of a day.

    Args:
        roots: corporate storage is listed only where there is something to compare, and no further than needed.
        day: whose progress.
        fingerprint: of the day's present listing, where the coalescer's status has it already.

    Raises:
        CdiError: INPUT_INVALID where a manifest or mark cannot be read as one.
        StorageError: the day cannot be listed or read.
    """
    pinned, mark = read_pinned_input(roots.published, day), read_mark(roots.published, day)
    if fingerprint is None and (pinned or mark):
        inputs: list[PinnedInput | None] = [pinned] if pinned else []
        if mark and (pinned is None or mark.fingerprint != pinned.fingerprint):
            inputs.append(read_published_input(roots.published, day))
        fingerprint = _present_fingerprint(roots.corporate, day, inputs)
    missing = missing_tables(roots.published, day, mark) if mark else day.collection.table_names
    return DayProgress(
        pinned=pinned is not None,
        pinned_is_current=pinned is not None and pinned.fingerprint == fingerprint,
        published=mark is not None,
        published_is_current=mark is not None and mark.fingerprint == fingerprint,
        published_records=mark.published if mark else None,
        has_tables=bool(day.collection.table_names),
        missing_tables=missing,
        is_whole=mark is not None and not missing,
    )


def _present_fingerprint(corporate: Storage, day: CollectionDay, inputs: list[PinnedInput | None]) -> str | None:
    """Return the listing's fingerprint, or None as soon as it has more objects than any input: it matches none."""
    known = [len(each.objects) + len(each.left_out) for each in inputs if each]
    most = max(known) if len(known) == len(inputs) else None
    listing = list(islice(corporate.list(day.corporate_prefix), None if most is None else most + 1))
    return None if most is not None and len(listing) > most else listing_fingerprint(listing)
