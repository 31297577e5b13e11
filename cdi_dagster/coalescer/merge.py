"""Writes the bytes of a batch: the gzip members of the raw objects one after the other, each checked as a stream.

Concatenated gzip members are valid gzip. After a member that does not end with a newline, a small member with one
follows: otherwise a reader that knows no members would join its last record to the next one's first. Padding between
members is left out: some readers (java.util.zip) take it for the end of everything. Imported by `run` only.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from typing import BinaryIO

from cdi_dagster.coalescer.gzip_part import NEWLINE_MEMBER, GzipPart, UnreadablePartError
from cdi_dagster.coalescer.raw_objects import Source
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.member_index import Extent, add_extent
from cdi_dagster.storage.interface import Storage

CHUNK_BYTES = 256 * 1024
_SMALL_BYTES = 1024 * 1024
"""Objects up to this size are read ahead as a whole; larger ones are streamed."""
_AHEAD_OBJECTS = 64
_AHEAD_BYTES = 8 * 1024 * 1024
"""What one batch holds at most, and one object. S3 takes about 15 ms a request, which would dominate with tiny ones."""


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
    readers: Executor,
    on_source: Callable[[Source], None],
) -> Merged:
    """Write the bytes of a batch.

    Args:
        storage: where the raw objects are.
        sources: the raw objects, in offset order.
        write: takes the bytes.
        readers: read small objects ahead; all batches may share them.
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

    for source, chunks in _contents(storage, sources, readers):
        start = size_bytes
        part = GzipPart(on_compressed=put, on_unended=lambda: put(NEWLINE_MEMBER))
        try:
            for chunk in chunks:
                part.feed(chunk)
            part.finish()
        except UnreadablePartError as error:
            raise BatchError(
                f"{source.stored.key} cannot be merged: {error}. Fix it or move it away, then run the coalescer again."
            ) from error
        if part.unended_lines == 1:
            warnings.append(f"{source.stored.key} does not end with a newline; one was put after it")
        elif part.unended_lines:
            warnings.append(
                f"{source.stored.key} has {part.unended_lines} gzip members that do not end with a newline; "
                "one was put after each"
            )
        if part.lines != source.name.offset_count:
            warnings.append(
                f"{source.stored.key} holds {part.lines} lines, but its name states {source.name.offset_count} offsets"
            )
        # A reader of the coalesced object finds one more line, a blank one, after each that has no newline of its own.
        lines, envelopes = part.lines + part.unended_lines, part.lines - part.blank_lines
        add_extent(groups, Extent(bytes=size_bytes - start, lines=lines, envelopes=envelopes))
        on_source(source)
    return Merged(size_bytes=size_bytes, sha256=digest.hexdigest(), groups=tuple(groups), warnings=tuple(warnings))


def stored_checksum(storage: Storage, stored: StoredObject) -> tuple[int, str]:
    """Read a stored object back; return its size in bytes and its SHA-256."""
    digest = hashlib.sha256()
    size_bytes = 0
    with storage.open(stored.key, etag=stored.etag) as stream:
        for chunk in chunks_of(stream):
            digest.update(chunk)
            size_bytes += len(chunk)
    return size_bytes, digest.hexdigest()


def chunks_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a stream's bytes in pieces."""
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk


def _contents(
    storage: Storage, sources: Sequence[Source], readers: Executor
) -> Iterator[tuple[Source, Iterable[bytes]]]:
    """Yield every raw object with its bytes, in order; small ones are read ahead."""
    ahead: deque[tuple[Source, Future[bytes] | None]] = deque()
    ahead_bytes = 0
    upcoming = iter(sources)
    is_more = True
    try:
        while is_more or ahead:
            while is_more and (not ahead or (len(ahead) < _AHEAD_OBJECTS and ahead_bytes < _AHEAD_BYTES)):
                source = next(upcoming, None)
                if source is None:
                    is_more = False
                    break
                is_small = source.stored.size_bytes <= _SMALL_BYTES
                ahead.append((source, readers.submit(_read_whole, storage, source) if is_small else None))
                ahead_bytes += source.stored.size_bytes if is_small else 0
            if not ahead:
                return
            source, content = ahead.popleft()
            if content is not None:
                yield source, [content.result()]
                ahead_bytes -= source.stored.size_bytes
                continue
            with storage.open(source.stored.key, etag=source.stored.etag) as stream:
                yield source, chunks_of(stream)
    finally:
        wait([content for _, content in ahead if content is not None and not content.cancel()])


def _read_whole(storage: Storage, source: Source) -> bytes:
    return storage.read_small(source.stored.key, etag=source.stored.etag)
