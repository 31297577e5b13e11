"""Opens the objects of a task a few ahead of the one that is read, so that many small ones don't each cost a wait.

A day on which K2HB did not batch is tens of thousands of objects of some kB: on S3 each waits some 20 ms for its
first byte, several times what its records cost. Local files are opened in turn: threads would cost more than the wait.
Runs in Spark's Python workers; imported by `task`.
"""

import io
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import BinaryIO, Final, TypeAlias, cast

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.pinned_input import PinnedObject
from cdi_dagster.spark.ingest.gunzip import READ_BYTES
from cdi_dagster.spark.ingest.planning import Piece
from cdi_dagster.storage import ObjectChangedError, ObjectMissingError, Storage, StorageError

_AHEAD: Final = 8
"""Objects read ahead of the one being read: so many times fewer waits, and 4 MB of memory at most."""

_SMALL_BYTES: Final = 512 * 1024
"""Objects up to this size are read whole, by the cheaper client; of larger ones the first block."""


def opened(storage: Storage, pieces: Sequence[Piece]) -> Generator[tuple[Piece, BinaryIO]]:
    """Yield every piece, in order, open at its first byte as it was pinned; each is closed when the next is requested.

    Raises:
        CdiError: INPUT_CHANGED, when its turn comes or from the stream, where an object is not as it was pinned.
        StorageError: it cannot be read for another reason.
    """
    begun = _begun_in_turn(storage, pieces) if storage.is_near else _begun_ahead(storage, pieces)
    with closing(begun):
        for piece, stream in begun:
            with closing(stream):
                yield piece, cast(BinaryIO, stream)


_Begun: TypeAlias = Generator[tuple[Piece, "_PinnedStream"]]


def _begun_in_turn(storage: Storage, pieces: Sequence[Piece]) -> _Begun:
    for piece in pieces:
        yield piece, _begin(storage, piece)


def _begun_ahead(storage: Storage, pieces: Sequence[Piece]) -> _Begun:
    waiting = deque(pieces)
    ahead: deque[tuple[Piece, Future[_PinnedStream]]] = deque()
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="read-ahead") as pool:
        try:
            while waiting or ahead:
                while waiting and len(ahead) <= _AHEAD:
                    piece = waiting.popleft()
                    ahead.append((piece, pool.submit(_begin, storage, piece)))
                piece, begun = ahead.popleft()
                yield piece, begun.result()
        finally:
            _close_all([begun for _, begun in ahead])


class _PinnedStream:
    """A pinned object, open, its first block read already."""

    def __init__(self, pinned: PinnedObject, stream: BinaryIO, head: bytes) -> None:
        self._pinned = pinned
        self._stream = stream
        self._head = head

    def read(self, size: int) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        with _as_pinned(self._pinned):
            return self._stream.read(size)

    def close(self) -> None:
        self._stream.close()


def _begin(storage: Storage, piece: Piece) -> _PinnedStream:
    pinned = piece.pinned
    with _as_pinned(pinned):
        if not storage.is_near and pinned.size_bytes <= _SMALL_BYTES and piece.extent is None:
            content = storage.read_small(pinned.key, etag=pinned.etag, version_id=pinned.version_id)
            return _PinnedStream(pinned, io.BytesIO(content), b"")
        stream = storage.open(
            pinned.key,
            etag=pinned.etag,
            version_id=pinned.version_id,
            first_byte=piece.before.bytes,
            byte_count=piece.extent.bytes if piece.extent else None,
        )
        try:
            return _PinnedStream(pinned, stream, stream.read(READ_BYTES))
        except BaseException:
            stream.close()
            raise


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


def _close_all(begun: Sequence["Future[_PinnedStream]"]) -> None:
    for future in begun:
        if not future.cancel():
            with suppress(StorageError, CdiError):  # of objects that are no longer read
                future.result().close()
