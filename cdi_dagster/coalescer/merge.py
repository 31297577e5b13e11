"""Writes the bytes of a batch: the gzip members of the raw objects one after the other, each checked as a stream.

Concatenated gzip members are valid gzip. After a member that does not end with a newline, a small member with one
follows: otherwise a reader that knows no members would join its last record to the next one's first. Padding between
members is left out: some readers (java.util.zip) take it for the end of everything. Imported by `run` only.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import attrgetter
from typing import BinaryIO

from cdi_dagster.coalescer.gzip_part import NEWLINE_MEMBER, GzipPart, UnreadablePartError
from cdi_dagster.coalescer.raw_objects import Source
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.member_index import Extent, add_extent
from cdi_dagster.storage.interface import Storage
from cdi_dagster.storage.read_ahead import ReadAhead

CHUNK_BYTES = 256 * 1024


class BatchError(Exception):
    """A batch cannot be merged; the message names the object and what to do."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The result of merging a batch.

    Attributes:
        size_bytes: size of the coalesced object.
        sha256: checksum of its bytes.
        groups: its gzip members, for its index.
        warnings: sentences about raw objects that were merged but look odd.
    """

    size_bytes: int
    sha256: str
    groups: tuple[Extent, ...]
    warnings: tuple[str, ...]


def merge(
    storage: Storage,
    sources: Sequence[Source],
    write: Callable[[bytes], object],
    *,
    readers: ReadAhead,
    on_source: Callable[[Source], None],
) -> Merged:
    """Write the bytes of a batch.

    Args:
        storage: where the raw objects are.
        sources: the raw objects, in offset order.
        write: takes the bytes.
        readers: read objects ahead; all batches may share them.
        on_source: called with each raw object once it is written.

    Raises:
        BatchError: a raw object is not whole gzip.
        StorageError: a raw object cannot be read, or is not the one that was listed.
    """
    digest = hashlib.sha256()
    size_bytes = 0
    groups: list[Extent] = []
    warnings: list[str] = []

    def put(data: bytes) -> None:
        nonlocal size_bytes
        write(data)
        digest.update(data)
        size_bytes += len(data)

    with closing(readers.opened(storage, sources, attrgetter("stored"))) as streams:
        for source, stream in streams:
            start = size_bytes
            part = GzipPart(on_compressed=put, on_unended=lambda: put(NEWLINE_MEMBER))
            try:
                inflate(part, stream)
            except UnreadablePartError as error:
                raise BatchError(
                    f"{source.stored.key} cannot be merged: {error}. Fix it or move it away, then run the coalescer "
                    "again."
                ) from error
            warnings += _oddities(source, part)
            # A reader of the coalesced object finds a blank line more after each that has no newline of its own.
            lines, envelopes = part.lines + part.unended_lines, part.lines - part.blank_lines
            add_extent(groups, Extent(bytes=size_bytes - start, lines=lines, envelopes=envelopes))
            on_source(source)
    return Merged(size_bytes=size_bytes, sha256=digest.hexdigest(), groups=tuple(groups), warnings=tuple(warnings))


def _oddities(source: Source, part: GzipPart) -> Iterator[str]:
    """Yield what is odd about a raw object that was merged, in sentences."""
    if part.unended_lines == 1:
        yield f"{source.stored.key} does not end with a newline; one was put after it"
    elif part.unended_lines:
        yield (
            f"{source.stored.key} has {part.unended_lines} gzip members that do not end with a newline; "
            "one was put after each"
        )
    if part.lines != source.name.offset_count:
        yield f"{source.stored.key} holds {part.lines} lines, but its name states {source.name.offset_count} offsets"


def stored_checksum(storage: Storage, stored: StoredObject) -> tuple[int, str]:
    """Read a stored object back; return its size in bytes and its SHA-256."""
    digest = hashlib.sha256()
    size_bytes = 0
    with storage.open(stored.key, etag=stored.etag) as stream:
        for chunk in chunks_of(stream):
            digest.update(chunk)
            size_bytes += len(chunk)
    return size_bytes, digest.hexdigest()


def inflate(part: GzipPart, stream: BinaryIO) -> None:
    """Feed a part all of a stream.

    Raises:
        UnreadablePartError: it is no complete gzip.
        StorageError: it cannot be read to its end.
    """
    for chunk in chunks_of(stream):
        part.feed(chunk)
    part.finish()


def chunks_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a stream's bytes in pieces."""
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk
