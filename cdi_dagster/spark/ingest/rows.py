"""Rows of a keyed collection: from a finished block to ORC files by `id_part`, each sorted by id.

A task that reads objects meets every `id_part`, and 256 files each would be tiny. So the rows are gathered by
`id_part` first (`task_runner.Gathering`), through Spark's shuffle, which `job` has encrypted on disk. Runs in Spark's
Python workers, and in the process that replays rejects.
"""

import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from cdi_dagster.core.collections import DbType
from cdi_dagster.core.storage_keys import id_part_folder
from cdi_dagster.published.publish import WrittenPart
from cdi_dagster.spark.ingest.objects import IngestedBlock
from cdi_dagster.spark.tables.orc_parts import OrcParts
from cdi_dagster.storage import Storage

Row: TypeAlias = tuple[str, int, int, str, str, bytes]
"""`id`, Kafka partition, Kafka offset, `id_part`, `db_type`, record: in the order by which a file is sorted."""

COLUMNS: Final = (
    ("id", "string"),
    ("db_type", "string"),
    ("val", "string"),
    ("kafka_partition", "int"),
    ("kafka_offset", "bigint"),
)
"""Of a file; `id_part` is in its folder's name."""

MOST_BUFFERED_BYTES: Final = 128 * 1024 * 1024
"""Text that a worker sorts in memory; a fuller `id_part` gets more files. Compressed, some 20 MB."""

GATHERED_BYTES: Final = 64 * 1024 * 1024
"""Of the pinned objects, for each gathering task: about as much as their rows' text, since they are encrypted."""

LEAST_GATHERED_BYTES: Final = 4 * 1024 * 1024
"""For each gathering task of a day that is too small to keep every core at work with larger ones."""

MOST_PARTITIONS: Final = 256
"""One for each `id_part`."""

_ROWS_AT_ONCE: Final = 2_000
_ROW_OVERHEAD_BYTES: Final = 400


def plan_partitions(input_bytes: int, *, cores: int) -> int:
    """Return in how many tasks the rows are gathered."""
    large = math.ceil(input_bytes / GATHERED_BYTES)
    small = min(cores, math.ceil(input_bytes / LEAST_GATHERED_BYTES))
    return max(1, min(large + small, MOST_PARTITIONS))


def partition_of(id_part: str, partitions: int) -> int:
    """Return which task gathers an `id_part`: the hexadecimal ones are spread evenly."""
    try:
        return int(id_part, 16) % partitions
    except ValueError:
        return zlib.crc32(id_part.encode()) % partitions


def rows_of(block: IngestedBlock) -> Iterator[Row]:
    """Yield the rows of a block.

    Where an object holds fewer envelopes than its name states offsets, an offset is the least that it can be: ties are
    decided in the same order.
    """
    name = block.pinned.name
    kafka_partition, first_offset = name.kafka_partition, name.first_offset + block.first_index
    records = block.result.records.split(b"\n")
    for (position, key, db_type), record in zip(block.result.rows, records, strict=False):
        yield key.id, kafka_partition, first_offset + position, key.id_part, db_type.value, record


class RowFiles:
    """Writes rows, as they come, to ORC files in a folder for each `id_part`, prepared but not yet visible.

    Args:
        storage: where to.
        prefix: of the day.
        publication_id: ends every file's name.
        group: upload group: the correlation id.
    """

    def __init__(self, storage: Storage, prefix: str, *, publication_id: str, group: str) -> None:
        self._storage = storage
        self._prefix = prefix
        self._publication_id = publication_id
        self._group = group
        self._rows: dict[str, list[Row]] = defaultdict(list)
        self._bytes: Counter[str] = Counter()
        self._files: Counter[str] = Counter()
        self._written: list[WrittenPart] = []

    def add(self, row: Row) -> None:
        """Take a row."""
        row_id, _, _, id_part, _, record = row
        self._rows[id_part].append(row)
        size = len(row_id) + len(record) + _ROW_OVERHEAD_BYTES
        self._bytes[id_part] += size
        self._bytes[""] += size  # of all: no id_part is empty
        if self._bytes[""] >= MOST_BUFFERED_BYTES:
            self._write(max(self._rows, key=self._bytes.__getitem__))

    def finish(self) -> tuple[WrittenPart, ...]:
        """Write what is left and return what publishes the files."""
        for id_part in sorted(self._rows):
            self._write(id_part)
        return tuple(self._written)

    def _write(self, id_part: str) -> None:
        rows = sorted(self._rows.pop(id_part))
        self._bytes[""] -= self._bytes.pop(id_part)
        number = self._files[id_part]
        self._files[id_part] += 1
        files = OrcParts(
            self._storage,
            f"{self._prefix}{id_part_folder(id_part)}",
            columns=COLUMNS,
            attempt=self._publication_id,
            group=self._group,
            task_index=number,
            stride=1,
        )
        with files:
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                some = rows[start : start + _ROWS_AT_ONCE]
                files.write(_columns_of(some), len(some))
            (file,) = files.finish()
        self._written.append(
            WrittenPart(
                prepared=file.prepared,
                lines=file.rows,
                text_bytes=sum(len(row[5]) + 1 for row in rows),
                deletes=sum(row[4] == DbType.DELETE for row in rows),
            )
        )


def _columns_of(rows: Sequence[Row]) -> list[list[str] | list[int]]:
    return [
        [row[0] for row in rows],
        [row[4] for row in rows],
        [row[5].decode() for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
    ]
