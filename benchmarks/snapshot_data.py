"""The input of the snapshot's benchmark: a base of 90 % of the rows and seven days, as ORC with their marks.

Written from a seed by pyarrow, an id_part at a time, straight into files as the jobs leave them; kept below one folder,
with a stamp file once it is complete.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Final

import pyarrow as pa
from pyarrow import orc

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.snapshot import ONE_WEEK, SnapshotInput, week_of
from cdi_dagster.core.storage_keys import SUCCESS_MARK, daily_rows_prefix, id_part_folder, snapshot_prefix
from cdi_dagster.published.mark import Mark, PublishedPart
from cdi_dagster.published.snapshot_mark import SnapshotMark, SnapshotPart
from cdi_dagster.published.snapshots import snapshot_of

COLLECTION: Final = find_collection("calculator:calculationParts")
EXPORT_DAY: Final = date(2023, 6, 9)
BASE_DAY: Final = EXPORT_DAY - ONE_WEEK
DAYS: Final = week_of(EXPORT_DAY)
_STAMP: Final = "whole"
_IN_DAYS: Final = 10
"""One row in so many is of a day; half of these change an id of the base."""
_ROWS_AT_ONCE: Final = 4_096
_POOL: Final = 1_024
_BASE_SCHEMA: Final = pa.schema({"id": pa.string(), "db_type": pa.string(), "val": pa.string()})
_DAY_SCHEMA: Final = pa.schema([*_BASE_SCHEMA, ("kafka_partition", pa.int32()), ("kafka_offset", pa.int64())])


@dataclass(frozen=True, kw_only=True)
class SnapshotInputSize:
    """What to write.

    Attributes:
        rows: of base and days.
        id_parts: into which they fall, evenly; production has 256.
        seed: another seed makes other rows of the same shape.
    """

    rows: int
    id_parts: int = 16
    seed: int = 1

    @property
    def name(self) -> str:
        """A folder name with all of these."""
        return f"snapshot-{self.rows}-{self.id_parts}-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class _File:
    key: str
    size_bytes: int
    day: date | None
    db_types: Counter[str]


def snapshot_input(folder: Path, size: SnapshotInputSize, log: Callable[[str], None]) -> Path:
    """Return the published root of this size below `folder`, written now unless it exists."""
    root = folder / size.name
    if not (root / _STAMP).exists():
        log(f"writing {size.rows:,} rows in {size.id_parts} id_parts")
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            found = list(pool.map(partial(_write_id_part, root, size), range(size.id_parts)))
        _write_marks(root, [file for files in found for file in files])
        (root / _STAMP).touch()
    return root


def _write_id_part(root: Path, size: SnapshotInputSize, number: int) -> list[_File]:
    """Write the base's file of one id_part, and a file of each day."""
    chance = Random(size.seed * 1_000_003 + number)  # noqa: S311 - reproducible on purpose
    id_part = f"{number * 256 // size.id_parts:02x}"
    values = _Values(chance)
    rows = size.rows // size.id_parts + (number < size.rows % size.id_parts)
    of_days = rows // _IN_DAYS
    base = _ids(chance, id_part, rows - of_days)
    changed = chance.sample(base, min(of_days // 2, len(base)))
    ids = [*changed, *_ids(chance, id_part, of_days - len(changed))]
    folder = id_part_folder(id_part)
    prefix = snapshot_prefix(snapshot_of(COLLECTION, BASE_DAY))
    files = [_written(root, f"{prefix}{folder}part-0.orc", None, _base_rows(base, values), _BASE_SCHEMA)]
    for offset, day in enumerate(DAYS):
        key = f"{daily_rows_prefix(COLLECTION.on(day))}{folder}part-0.orc"
        files.append(_written(root, key, day, _day_rows(sorted(ids[offset::7]), values, day), _DAY_SCHEMA))
    return files


def _ids(chance: Random, id_part: str, count: int) -> list[str]:
    return sorted(f'{{"id":"{id_part}{chance.getrandbits(120):030x}"}}' for _ in range(count))


class _Values:
    """Records of some 1 kB: JSON with sorted keys, which zlib makes some four times smaller."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._middles = [_fields(chance, "a", "m") for _ in range(_POOL)]
        self._ends = [_fields(chance, "n", "z") for _ in range(_POOL)]

    def record(self, id_text: str, day: date) -> str:
        bits = self._chance.getrandbits(60)
        at = f"{day}T{bits % 24:02d}:{bits % 60:02d}:{bits % 59:02d}.{bits % 1000:03d}Z"
        middle, end = self._middles[bits % _POOL], self._ends[(bits >> 10) % _POOL]
        return (
            f'{{"_id":{id_text},"_lastModifiedDateTime":{{"d_date":"{at}"}},{middle},"citizenId":"{bits:015x}",'
            f'{end},"zVersion":{bits >> 50}}}'
        )

    def db_type(self) -> str:
        return "DELETE" if self._chance.random() < 0.3 else "INSERT"

    def earlier_day(self) -> date:
        return BASE_DAY - timedelta(days=1 + int(self._chance.random() ** 2 * 700))

    def place(self) -> tuple[int, int]:
        bits = self._chance.getrandbits(40)
        return bits % 8, bits >> 3


def _fields(chance: Random, first: str, last: str) -> str:
    names = [f"{chr(letter)}{noun}" for letter in range(ord(first), ord(last) + 1) for noun in ("Amount", "Reason")]
    words = ("housing", "childcare", "carer", "element", "standard", "allowance", "deduction", "limited", "earnings")
    return ",".join(
        f'"{name}":"{chance.randrange(10**6) / 100}"'
        if name.endswith("Amount")
        else f'"{name}":"{chance.choice(words)}"'
        for name in names
    )


def _base_rows(ids: Iterable[str], values: _Values) -> Iterator[tuple[object, ...]]:
    return ((each, values.db_type(), values.record(each, values.earlier_day())) for each in ids)


def _day_rows(ids: Iterable[str], values: _Values, day: date) -> Iterator[tuple[object, ...]]:
    return ((each, values.db_type(), values.record(each, day), *values.place()) for each in ids)


def _written(root: Path, key: str, day: date | None, rows: Iterator[tuple[object, ...]], schema: pa.Schema) -> _File:
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    db_types: Counter[str] = Counter()
    with orc.ORCWriter(path, compression="zlib") as writer:
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            columns = list(zip(*some, strict=True))
            db_types.update(columns[1])
            writer.write(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema))
    return _File(key=key, size_bytes=path.stat().st_size, day=day, db_types=db_types)


def _write_marks(root: Path, files: Sequence[_File]) -> None:
    now = datetime(2023, 6, 10, tzinfo=UTC)
    for day in DAYS:
        of_day = [file for file in files if file.day == day]
        mark = Mark(
            fingerprint="benchmark",
            correlation_id="benchmark",
            collection_id=COLLECTION.id,
            storage_day=day,
            published=sum(file.db_types.total() for file in of_day),
            rejected=0,
            record_bytes=0,
            published_bytes=sum(file.size_bytes for file in of_day),
            parts=tuple(
                PublishedPart(key=file.key, size_bytes=file.size_bytes, records=file.db_types.total())
                for file in of_day
            ),
            published_at=now,
        )
        (root / f"{daily_rows_prefix(COLLECTION.on(day))}{SUCCESS_MARK}").write_bytes(mark.to_bytes())
    base = [file for file in files if file.day is None]
    rows = sum((file.db_types for file in base), Counter[str]())
    of_base = SnapshotMark(
        correlation_id="benchmark",
        collection_id=COLLECTION.id,
        export_day=BASE_DAY,
        fingerprint="benchmark",
        made_from=SnapshotInput(base=None, days={BASE_DAY - timedelta(days=1): "benchmark"}),
        rows_in=rows,
        rows=rows,
        id_parts={},
        parts=tuple(SnapshotPart(key=file.key, size_bytes=file.size_bytes) for file in base),
        published_at=now,
    )
    prefix = snapshot_prefix(snapshot_of(COLLECTION, BASE_DAY))
    (root / f"{prefix}{SUCCESS_MARK}").write_bytes(of_base.to_bytes())
