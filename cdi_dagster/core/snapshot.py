"""The weekly snapshots of a keyed collection: the days that each takes in, its base, which are stale. Pure.

A snapshot is named by its *export day*, always a Friday: that date is its partition key, its folder and the `Date` of
its status row. It is the base with the storage days after it: in a usual week those from the Friday before to the
Thursday, whose rows appear under the export days Saturday to Friday.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import days_before, storage_day_of, storage_days_between
from cdi_dagster.core.failures import CdiError, FailureClass

ONE_WEEK = timedelta(days=7)
_FRIDAY = 4
_NAMED_DAYS = 14


@dataclass(frozen=True, kw_only=True)
class SnapshotBase:
    """The snapshot that another one began from.

    Attributes:
        export_day: of the base.
        fingerprint: of the base.
    """

    export_day: date
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class SnapshotInput:
    """What a snapshot is, or was, made from.

    Attributes:
        base: the snapshot before, or None: then the days begin with the collection's first.
        days: storage day -> which rows of it (`daily_rows_identity`), in order.
    """

    base: SnapshotBase | None
    days: Mapping[date, str]

    @property
    def fingerprint(self) -> str:
        """64 hex digits that change with the base and with the rows of any day."""
        base = [self.base.export_day.isoformat(), self.base.fingerprint] if self.base else None
        days = sorted((day.isoformat(), identity) for day, identity in self.days.items())
        return hashlib.sha256(json.dumps([base, days]).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class MadeSnapshot:
    """A published snapshot, as far as a decision needs it.

    Attributes:
        export_day: its name.
        fingerprint: of what it was made from; of an adopted one, of its files.
        made_from: base and days; None for one that was adopted from the old system.
    """

    export_day: date
    fingerprint: str
    made_from: SnapshotInput | None


def daily_rows_identity(fingerprint: str, rows: int) -> str:
    """Return which rows of a day these are: a replay of rejects adds rows of the same input."""
    return f"{fingerprint}/{rows}"


def is_snapshot_day(export_day: date) -> bool:
    """Whether a snapshot is made on an export day: on Fridays."""
    return export_day.weekday() == _FRIDAY


def require_snapshot_day(export_day: date) -> None:
    """Return where a snapshot can be of that export day.

    Raises:
        CdiError: INPUT_INVALID where it is no Friday.
    """
    if not is_snapshot_day(export_day):
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{export_day} is a {export_day:%A}: snapshots are of Fridays, by their export day.",
            next_step=f"Name the Friday before it, {snapshot_days(export_day, weeks=1)[-1]}, or after it.",
        )


def snapshot_days(last: date, *, weeks: int) -> list[date]:
    """Return so many export days of snapshots up to `last`, which may be any day, oldest first."""
    friday = days_before(last, (last.weekday() - _FRIDAY) % 7)
    return [friday - ONE_WEEK * number for number in reversed(range(weeks))]


def first_snapshot_day(first_storage_day: date) -> date:
    """Return the first Friday with a whole week of storage days before it; that snapshot has earlier days too."""
    return snapshot_days(first_storage_day + 2 * ONE_WEEK, weeks=2)[0 if is_snapshot_day(first_storage_day) else 1]


def week_of(export_day: date) -> list[date]:
    """Return the seven storage days, Friday to Thursday, that a snapshot adds to the one of the week before."""
    return storage_days_between(export_day - ONE_WEEK, storage_day_of(export_day))


def stale_snapshots(made: Iterable[MadeSnapshot], rows: Mapping[date, str]) -> frozenset[date]:
    """Return the export days of the snapshots that no longer hold what is published.

    A snapshot is stale where the rows of one of its days are other ones now, where its base is another one now, and
    where its base is stale. A day or base that is gone (a lifecycle rule) proves nothing.

    Args:
        made: the published snapshots.
        rows: which rows of each storage day are published now.
    """
    fingerprints: dict[date, str] = {}
    stale: set[date] = set()
    for snapshot in sorted(made, key=lambda each: each.export_day):
        fingerprints[snapshot.export_day] = snapshot.fingerprint
        used = snapshot.made_from
        if used is None:
            continue
        changed = any(rows.get(day, identity) != identity for day, identity in used.days.items())
        if used.base:
            before = used.base.export_day
            changed |= before in stale or fingerprints.get(before, used.base.fingerprint) != used.base.fingerprint
        if changed:
            stale.add(snapshot.export_day)
    return frozenset(stale)


def usable_base(export_day: date, made: Sequence[MadeSnapshot], rows: Mapping[date, str]) -> MadeSnapshot | None:
    """Return the newest published snapshot before an export day that is not stale, or None.

    From a stale one, what it lacks would be missing for ever.
    """
    stale = stale_snapshots(made, rows)
    usable = [each for each in made if each.export_day < export_day and each.export_day not in stale]
    return max(usable, key=lambda each: each.export_day, default=None)


def snapshot_input(
    collection: Collection,
    export_day: date,
    made: Sequence[MadeSnapshot],
    rows: Mapping[date, str],
    *,
    first_storage_day: date,
) -> SnapshotInput:
    """Return what the snapshot of an export day is made from now.

    Args:
        collection: whose snapshot.
        export_day: a Friday.
        made: the published snapshots.
        rows: which rows of each storage day are published now.
        first_storage_day: of the collection, for a snapshot without a base.

    Raises:
        CdiError: INPUT_INVALID where a day between base and snapshot is missing; every one is named.
    """
    require_snapshot_day(export_day)
    before = usable_base(export_day, made, rows)
    days = storage_days_between(before.export_day if before else first_storage_day, storage_day_of(export_day))
    missing = [day for day in days if day not in rows]
    if missing or not days:
        raise _days_missing(collection, export_day, missing, before)
    base = SnapshotBase(export_day=before.export_day, fingerprint=before.fingerprint) if before else None
    return SnapshotInput(base=base, days={day: rows[day] for day in days})


def days_in_words(days: Sequence[date]) -> str:
    """Return days as text, the first ones by name."""
    more = len(days) - _NAMED_DAYS
    return ", ".join(map(str, days[:_NAMED_DAYS])) + (f" and {more} more" if more > 0 else "")


def groups_of_id_parts(stored_bytes: Mapping[str, int], *, most_bytes: int) -> list[list[str]]:
    """Divide the id_parts, in order, into groups of at most so many bytes; one that is larger is a group of its own."""
    groups: list[list[str]] = []
    size = 0
    for id_part, part_bytes in sorted(stored_bytes.items()):
        if not groups or size + part_bytes > most_bytes:
            groups.append([])
            size = 0
        groups[-1].append(id_part)
        size += part_bytes
    return groups


def _days_missing(collection: Collection, export_day: date, missing: list[date], base: MadeSnapshot | None) -> CdiError:
    begins = f"after the snapshot of {base.export_day}" if base else "with the collection's first storage day"
    if not missing:
        return CdiError(
            FailureClass.INPUT_INVALID,
            f"The snapshot of {collection.id} for {export_day} would take in no day: it begins {begins}.",
            next_step="Correct CDI_FIRST_STORAGE_DAY, or choose a later Friday.",
        )
    return CdiError(
        FailureClass.INPUT_INVALID,
        f"The snapshot of {collection.id} for {export_day} begins {begins}, and there are no daily rows of "
        f"{len(missing)} storage days: {days_in_words(missing)}.",
        next_step=f"Materialise {collection.asset_name}/daily_rows for these days, then the snapshot. Where they are "
        "in a snapshot of the old system, adopt that first: cdi snapshot adopt.",
        detail={"missing_days": [day.isoformat() for day in missing]},
    )
