"""Storage days for the coalescer's tests: raw objects with known records, and what ingestion would read of them."""

import gzip
import io
import json
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

from cdi_dagster.core.member_index import NOTHING, MemberIndex
from cdi_dagster.core.pinned_input import pin
from cdi_dagster.core.storage_keys import member_index_key, member_indexes_prefix
from cdi_dagster.spark.ingest.reading import EnvelopeBlock, EnvelopeReader
from cdi_dagster.storage.interface import Storage
from cdi_dagster_tests.collections import AUDIT

DAY = date(2023, 3, 26)
PREFIX = AUDIT.on(DAY).corporate_prefix


def key(offsets: str, kafka_partition: int = 0) -> str:
    return f"{PREFIX}data.businessAudit_{kafka_partition}_{offsets}.jsonl.gz"


def record(kafka_partition: int, offset: int) -> bytes:
    return b'{"partition": %d, "offset": %d, "text": "\xc3\xa9"}' % (kafka_partition, offset)


def content(first: int, last: int, kafka_partition: int = 0, *, final_newline: bool = True) -> bytes:
    lines = b"\n".join(record(kafka_partition, offset) for offset in range(first, last + 1))
    return gzip.compress(lines + b"\n" * final_newline, mtime=0)


def put_raw(storage: Storage, first: int, last: int, kafka_partition: int = 0, data: bytes | None = None) -> str:
    name = key(f"{first}-{last}", kafka_partition)
    storage.write(name, content(first, last, kafka_partition) if data is None else data)
    return name


def put_small_day(storage: Storage) -> None:
    """Two Kafka partitions: five raw objects and a gap in one, three in the other. 40 records."""
    for first in (0, 5, 10, 20, 25):
        put_raw(storage, first, first + 4)
    for first in (100, 105, 110):
        put_raw(storage, first, first + 4, kafka_partition=1)


def small_day_records() -> list[bytes]:
    zero = [record(0, offset) for offset in (*range(15), *range(20, 30))]
    return sorted(zero + [record(1, offset) for offset in range(100, 115)])


def names(storage: Storage) -> list[str]:
    return [stored.key.removeprefix(f"{PREFIX}data.businessAudit_") for stored in storage.list(PREFIX)]


def ingested(storage: Storage) -> list[bytes]:
    """The lines that a run would read now: of exactly the objects that would be pinned."""
    pinned = pin(AUDIT.on(DAY), storage.root, storage.list(PREFIX))
    return sorted(
        line for each in pinned.objects for line in gzip.decompress(storage.read(each.key)).split(b"\n") if line
    )


def indexed(storage: Storage) -> list[str]:
    """The coalesced objects that have an index, each of which is true or of another object."""
    keys = []
    for stored in storage.list(member_indexes_prefix(AUDIT.on(DAY))):
        index = MemberIndex.from_json(json.loads(storage.read(stored.key)))
        assert member_index_key(index.key) == stored.key
        found = storage.head(index.key)
        if found is None or not index.fits(key=found.key, etag=found.etag, size_bytes=found.size_bytes):
            continue
        data = storage.read(index.key)
        before, lines = NOTHING, []
        for group in index.groups:  # reading fails where a part is not what the index states
            part = io.BytesIO(data[before.bytes : before.bytes + group.bytes])
            lines += _numbered_lines(EnvelopeReader(part, index.key, before=before, extent=group))
            before += group
        assert lines == _numbered_lines(EnvelopeReader(io.BytesIO(data), index.key))
        keys.append(index.key.removeprefix(f"{PREFIX}data.businessAudit_"))
    return keys


def _numbered_lines(reader: EnvelopeReader) -> list[tuple[int, int, bytes]]:
    return [
        (block.line_numbers[position], block.first_index + position, line)
        for block in reader.blocks()
        if isinstance(block, EnvelopeBlock)
        for position, line in enumerate(block.lines)
    ]


class Meddled:
    """A storage of which some methods are replaced; every replacement gets the real one first."""

    def __init__(self, storage: Storage, **replacements: Callable[..., Any]) -> None:
        self._storage = storage
        self._replacements = replacements

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._storage, name)
        replacement = self._replacements.get(name)
        if replacement is None:
            return real
        return lambda *arguments, **options: replacement(real, *arguments, **options)


def in_prefix(keys: Iterable[str]) -> bool:
    return any(each.startswith(PREFIX) for each in keys)
