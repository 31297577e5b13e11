"""Published snapshots: their marks, what one is made from now, and publishing one whole or not at all.

What Spark has written lies in a staging folder where nobody reads; `publish_snapshot` makes it appear. The caller holds
the snapshot's lease.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from typing import Any

from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.days import export_day_of, storage_day_of, storage_days_between
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.listing import listing_fingerprint
from cdi_dagster.core.snapshot import (
    ONE_WEEK,
    MadeSnapshot,
    SnapshotInput,
    daily_rows_identity,
    require_snapshot_day,
    snapshot_days,
    snapshot_input,
    usable_base,
    week_of,
)
from cdi_dagster.core.storage_keys import (
    SUCCESS_MARK,
    id_part_of,
    is_data_key,
    run_staging_prefix,
    snapshot_prefix,
    snapshot_staging_prefix,
)
from cdi_dagster.published.mark import Mark
from cdi_dagster.published.read import read_mark, require_stored
from cdi_dagster.published.snapshot_mark import SnapshotMark, SnapshotPart
from cdi_dagster.storage import ObjectMissingError, PreparedObject, Storage

MOST_WEEKS = 13
"""How many earlier snapshots are looked at for a base, and whether it is stale."""

RESTORE_PART = "Restore it, or make again what it is a part of: the day's rows, or the snapshot."

_THREADS = 16


def snapshot_of(collection: Collection, export_day: date) -> CollectionDay:
    """Return the collection's day by which everything of a snapshot is named: its last storage day, a Thursday."""
    return collection.on(storage_day_of(export_day))


def read_snapshot_mark(published: Storage, day: CollectionDay) -> SnapshotMark | None:
    """Return the mark of the snapshot of the day's export day, or None where none is published.

    Raises:
        CdiError: INPUT_INVALID where `_SUCCESS` is no mark of ours: what the old system left has to be adopted.
        StorageError: the storage does not respond.
    """
    key = f"{snapshot_prefix(day)}{SUCCESS_MARK}"
    value = _read_json(published, key)
    if value is None:
        return None
    try:
        return SnapshotMark.from_json(value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _no_mark(published, key, day) from error


@dataclass(frozen=True, kw_only=True)
class PublishedNow:
    """What of a collection is published now, as far as a snapshot and those before it depend on it.

    Attributes:
        snapshots: marks by export day, oldest first.
        rows: marks of daily rows by storage day.
    """

    snapshots: Mapping[date, SnapshotMark]
    rows: Mapping[date, Mark]

    @property
    def made(self) -> list[MadeSnapshot]:
        """The snapshots, as decisions need them."""
        return [
            MadeSnapshot(export_day=export_day, fingerprint=mark.fingerprint, made_from=mark.made_from)
            for export_day, mark in self.snapshots.items()
        ]

    @property
    def identities(self) -> dict[date, str]:
        """Which rows of each day are published."""
        return {day: daily_rows_identity(mark.fingerprint, mark.published) for day, mark in self.rows.items()}


def read_published_now(
    published: Storage, collection: Collection, export_day: date, *, first_storage_day: date, weeks: int = MOST_WEEKS
) -> PublishedNow:
    """Read the marks of so many snapshots up to an export day, and of the days from the first that they take in.

    Raises:
        CdiError: INPUT_INVALID where a mark cannot be read.
        StorageError: the storage does not respond.
    """
    # An adopted one may be of the Friday before the first storage day.
    fridays = [day for day in snapshot_days(export_day, weeks=weeks) if day > first_storage_day - ONE_WEEK]
    found = _in_parallel(lambda day: read_snapshot_mark(published, snapshot_of(collection, day)), fridays)
    snapshots = {day: mark for day, mark in zip(fridays, found, strict=True) if mark}
    first = min((day for mark in snapshots.values() if mark.made_from for day in mark.made_from.days), default=None)
    if first is None:  # no snapshot of ours: everything since the adopted one, or since the first day
        first = min(snapshots, default=first_storage_day)
    days = [day for week in _weeks(first, export_day) for day in week_of(week) if first <= day]
    return PublishedNow(snapshots=snapshots, rows=_read_rows(published, collection, days))


def read_input_now(
    published: Storage, collection: Collection, export_day: date, *, first_storage_day: date, weeks: int = MOST_WEEKS
) -> PublishedNow:
    """Read what the snapshot of an export day can be made from: its base, and the days since, of whatever age.

    Args:
        published: where it is read.
        collection: whose.
        export_day: a Friday.
        first_storage_day: of the collection: without a base all days since are read.
        weeks: the marks of so many snapshots are read; of `MOST_WEEKS` where none of these can be the base.

    Raises:
        CdiError: INPUT_INVALID where a mark cannot be read.
        StorageError: the storage does not respond.
    """
    now = read_published_now(published, collection, export_day, first_storage_day=first_storage_day, weeks=weeks)
    base = usable_base(export_day, now.made, now.identities)
    if base is None and weeks < MOST_WEEKS:
        return read_input_now(published, collection, export_day, first_storage_day=first_storage_day)
    # The later snapshots may have begun from one that is gone: then the days of that are not read yet.
    days = storage_days_between(base.export_day if base else first_storage_day, storage_day_of(export_day))
    missing = _read_rows(published, collection, [day for day in days if day not in now.rows])
    return replace(now, rows={**missing, **now.rows})


def input_now(
    published: Storage, collection: Collection, export_day: date, *, first_storage_day: date
) -> tuple[SnapshotInput, PublishedNow]:
    """Return what the snapshot of an export day is made from now, and what is published.

    Raises:
        CdiError: INPUT_INVALID where a day is missing, or a mark cannot be read.
        StorageError: the storage does not respond.
    """
    now = read_input_now(published, collection, export_day, first_storage_day=first_storage_day)
    used = snapshot_input(collection, export_day, now.made, now.identities, first_storage_day=first_storage_day)
    return used, now


def require_snapshot(published: Storage, day: CollectionDay) -> SnapshotMark:
    """Return the mark of the snapshot of the day's export day, where every file that it names is there.

    Raises:
        CdiError: INPUT_INVALID where it is not published, or a file is not as marked.
        StorageError: the storage does not respond.
    """
    mark = read_snapshot_mark(published, day)
    if mark is None:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"There is no snapshot of {day.collection.id} for {day.export_day}.",
            next_step=f"Materialise {day.collection.asset_name}/snapshot for that Friday first, or run cdi snapshot.",
        )
    parts = [(part.key, part.size_bytes) for part in mark.parts]
    require_stored(published, snapshot_prefix(day), parts, next_step=RESTORE_PART)
    return mark


def discard_staged(published: Storage, day: CollectionDay, *, correlation_id: str) -> None:
    """Delete what a run has written of the snapshot and not published; of no other, which may hold the lease by now."""
    published.discard(snapshot_prefix(day), group=correlation_id)
    _delete_below(published, run_staging_prefix(day, correlation_id))


def begin_snapshot(published: Storage, day: CollectionDay) -> None:
    """Complete what a killed run had decided to publish, and delete everything else that any run left."""
    published.recover(snapshot_prefix(day))
    published.discard(snapshot_prefix(day), group=None)
    _delete_below(published, snapshot_staging_prefix(day))


def _delete_below(published: Storage, prefix: str) -> None:
    published.delete([stored.key for stored in published.list(prefix)])


def staged_parts(published: Storage, day: CollectionDay, *, correlation_id: str) -> tuple[SnapshotPart, ...]:
    """Return the files that a run's Spark has written, without what belongs to its writing (`_SUCCESS`, checksums)."""
    return tuple(
        SnapshotPart(key=stored.key, size_bytes=stored.size_bytes)
        for stored in published.list(run_staging_prefix(day, correlation_id))
        if is_data_key(stored.key)
    )


def published_key(day: CollectionDay, staged_key: str) -> str:
    """Return the key under which a staged file is published: Spark's name for it, in the folder of its id_part."""
    return snapshot_prefix(day) + "/".join(staged_key.rsplit("/", 2)[-2:])


def prepare_staged(
    published: Storage, day: CollectionDay, staged: Sequence[SnapshotPart], *, correlation_id: str
) -> list[PreparedObject]:
    """Prepare the staged files of a run for publication, some at a time."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(partial(prepare_part, published, day, correlation_id=correlation_id), staged))


def prepare_part(published: Storage, day: CollectionDay, part: SnapshotPart, *, correlation_id: str) -> PreparedObject:
    """Prepare one staged file; what is prepared and not published, `discard_staged` discards."""
    return published.prepare_stored(part.key, published_key(day, part.key), group=correlation_id)


def publish_snapshot(
    published: Storage, day: CollectionDay, prepared: Sequence[PreparedObject], mark: SnapshotMark
) -> None:
    """Make the prepared files the snapshot, with their mark; what is left in staging, `discard_staged` deletes.

    Raises:
        StorageError: something could not be written; the published snapshot is as it was, or `begin_snapshot` completes
            the new one.
    """
    published.publish(snapshot_prefix(day), prepared, mark.to_bytes(), group=mark.correlation_id)


def adopt_snapshot(
    published: Storage, collection: Collection, export_day: date, *, correlation_id: str, now: datetime
) -> SnapshotMark:
    """Declare the files that were copied from the old system to be the snapshot of an export day: a base to begin from.

    Raises:
        CdiError: INPUT_INVALID where it is no Friday, there are no files, or a snapshot of ours is there.
    """
    require_snapshot_day(export_day)
    day = snapshot_of(collection, export_day)
    prefix = snapshot_prefix(day)
    stored = [each for each in published.list(prefix) if id_part_of(each.key) is not None]
    files = [each for each in stored if is_data_key(each.key)]
    if not files:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"There are no files of a snapshot below {published.uri(prefix)}.",
            next_step=f"Copy the old snapshot there, as {published.uri(prefix)}id_part=…/….orc, then adopt it.",
        )
    before = _adopted_before(published, day)
    mark = SnapshotMark(
        correlation_id=correlation_id,
        collection_id=collection.id,
        export_day=export_day,
        fingerprint=listing_fingerprint(files),
        made_from=None,
        rows_in={},
        rows={},
        id_parts={},
        parts=tuple(SnapshotPart(key=each.key, size_bytes=each.size_bytes) for each in files),
        published_at=now,
    )
    if before is None or before.fingerprint != mark.fingerprint:
        published.write(f"{prefix}{SUCCESS_MARK}", mark.to_bytes())
    return mark


def _adopted_before(published: Storage, day: CollectionDay) -> SnapshotMark | None:
    try:
        mark = read_snapshot_mark(published, day)
    except CdiError:
        return None  # the old system's
    if mark is not None and mark.made_from is not None:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"The snapshot of {day.collection.id} for {day.export_day} was made by run {mark.correlation_id}.",
            next_step="There is nothing to adopt: it is a base as it is.",
        )
    return mark


def _read_rows(published: Storage, collection: Collection, days: Sequence[date]) -> dict[date, Mark]:
    marks = _in_parallel(lambda day: read_mark(published, collection.on(day)), days)
    return {day: mark for day, mark in zip(days, marks, strict=True) if mark}


def _weeks(first_storage_day: date, export_day: date) -> list[date]:
    weeks = (export_day - export_day_of(first_storage_day)).days // 7 + 2
    return snapshot_days(export_day, weeks=max(weeks, 0))


def _read_json(published: Storage, key: str) -> Any:
    try:
        content = published.read(key)
    except ObjectMissingError:
        return None
    try:
        return json.loads(content)
    except ValueError:
        return ()


def _no_mark(published: Storage, key: str, day: CollectionDay) -> CdiError:
    return CdiError(
        FailureClass.INPUT_INVALID,
        f"{published.uri(key)} is no mark of a snapshot, so it is not known whether the snapshot is whole.",
        next_step="Where it was copied from the old system, completely: cdi snapshot adopt --collection "
        f"{day.collection.id} --export-day {day.export_day}. Otherwise delete the folder, and make the snapshot again.",
        detail={"key": key},
    )


def _in_parallel(work: Any, items: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(work, items))
