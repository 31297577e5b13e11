"""The files that a snapshot is made from: exactly those that the marks of its base and days name."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.snapshot import SnapshotInput
from cdi_dagster.core.storage_keys import all_daily_rows_prefix, daily_rows_prefix, id_part_of, snapshot_prefix
from cdi_dagster.published.read import require_stored
from cdi_dagster.published.snapshots import RESTORE_PART, PublishedNow, snapshot_of
from cdi_dagster.spark.snapshot.rows import base_rows, daily_rows
from cdi_dagster.storage import Storage


@dataclass(frozen=True, kw_only=True)
class InputFiles:
    """The files, by id_part.

    Attributes:
        published: where they are.
        base_prefix: of the base's files.
        days_prefix: of the days' files.
        base: keys of the base's files.
        days: keys of the days' files.
        stored_bytes: of both.
    """

    published: Storage
    base_prefix: str
    days_prefix: str
    base: Mapping[str, Sequence[str]]
    days: Mapping[str, Sequence[str]]
    stored_bytes: Mapping[str, int]

    def read(self, spark: SparkSession, id_parts: Sequence[str]) -> list[DataFrame]:
        """Return the rows of some id_parts: of the days, of the base, or of both."""
        days = [key for id_part in id_parts for key in self.days.get(id_part, ())]
        base = [key for id_part in id_parts for key in self.base.get(id_part, ())]
        found = []
        if days:
            found.append(daily_rows(spark, self.published, self.days_prefix, days))
        if base:
            found.append(base_rows(spark, self.published, self.base_prefix, base))
        return found


def find_input_files(published: Storage, collection: Collection, used: SnapshotInput, now: PublishedNow) -> InputFiles:
    """Return the files of base and days, all of which must be there as they are marked.

    Raises:
        CdiError: INPUT_INVALID, naming the first that is not.
    """
    of_days = [(daily_rows_prefix(collection.on(day)), now.rows[day].parts) for day in used.days]
    days = [(prefix, [(part.key, part.size_bytes) for part in parts]) for prefix, parts in of_days]
    base: list[tuple[str, list[tuple[str, int]]]] = []
    if used.base:
        prefix = snapshot_prefix(snapshot_of(collection, used.base.export_day))
        parts = now.snapshots[used.base.export_day].parts
        base.append((prefix, [(part.key, part.size_bytes) for part in parts]))
    for prefix, marked in [*days, *base]:
        require_stored(published, prefix, marked, next_step=RESTORE_PART)
    stored_bytes: Counter[str] = Counter()
    for _, marked in [*days, *base]:
        for key, size_bytes in marked:
            stored_bytes[id_part_of(key) or ""] += size_bytes
    return InputFiles(
        published=published,
        base_prefix=base[0][0] if base else "",
        days_prefix=all_daily_rows_prefix(collection),
        base=_by_id_part(base),
        days=_by_id_part(days),
        stored_bytes=stored_bytes,
    )


def _by_id_part(marked: Sequence[tuple[str, Sequence[tuple[str, int]]]]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = defaultdict(list)
    for _, parts in marked:
        for key, _ in parts:
            keys[id_part_of(key) or ""].append(key)
    return keys
