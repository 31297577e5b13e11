"""Opens the objects of a task as they were pinned, some ahead (`storage.read_ahead`), or fails with INPUT_CHANGED.

Runs in Spark's Python workers; imported by `task`.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import BinaryIO, cast

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.pinned_input import PinnedObject
from cdi_dagster.spark.ingest.planning import Piece
from cdi_dagster.storage import ObjectChangedError, ObjectMissingError, Storage
from cdi_dagster.storage.read_ahead import ByteRange, ReadAhead


def opened(storage: Storage, pieces: Sequence[Piece]) -> Generator[tuple[Piece, BinaryIO]]:
    """Yield every piece, in order, open at its first byte as it was pinned; each is closed when the next is requested.

    Raises:
        CdiError: INPUT_CHANGED, when its turn comes or from the stream, where an object is not as it was pinned.
        StorageError: it cannot be read for another reason.
    """
    with closing(_readers(os.getpid()).opened(storage, pieces, attrgetter("pinned"), _part)) as streams:
        for piece in pieces:
            with _as_pinned(piece.pinned):
                _, stream = next(streams)
            yield piece, cast(BinaryIO, _PinnedStream(piece.pinned, stream))


def _part(piece: Piece) -> ByteRange | None:
    return (piece.before.bytes, piece.extent.bytes) if piece.extent else None


@lru_cache(maxsize=1)
def _readers(_process: int) -> ReadAhead:
    """Return those of this process: a worker, of which there is one for each core. Threads do not survive a fork."""
    return ReadAhead(processes=os.cpu_count() or 1)


class _PinnedStream:
    """The stream of a pinned object."""

    def __init__(self, pinned: PinnedObject, stream: BinaryIO) -> None:
        self._pinned = pinned
        self._stream = stream

    def read(self, size: int) -> bytes:
        with _as_pinned(self._pinned):
            return self._stream.read(size)


@contextmanager
def _as_pinned(pinned: PinnedObject) -> Iterator[None]:
    try:
        yield
    except (ObjectMissingError, ObjectChangedError) as error:
        noticed_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        what = "gone" if isinstance(error, ObjectMissingError) else "another one"
        raise CdiError(
            FailureClass.INPUT_CHANGED,
            f"{pinned.key} was pinned with {pinned.size_bytes} bytes and ETag {pinned.etag}, but at {noticed_at} it is "
            f"{what}.",
            detail={"key": pinned.key, "noticed_at": noticed_at},
        ) from error
