"""Opens objects in order, the next ones ahead: the reading of coalescer and ingestion.

A day on which K2HB did not batch is tens of thousands of objects of some kB: on S3 each waits some 20 ms for its
first byte, several times what its content costs. Local files are opened in turn: threads would cost more than the wait.
"""

import io
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self, TypeAlias, TypeVar

from cdi_dagster.storage.interface import Storage, StorageError

_SMALL_BYTES: Final = 512 * 1024
"""Objects up to this size are read whole, by the cheaper client; larger ones are opened, and streamed."""
_AHEAD_OBJECTS: Final = 64
_AHEAD_BYTES: Final = 8 * 1024 * 1024
"""What one reader has ahead at most, and one object: behind a large object it is none."""
_REQUESTS_OF_MACHINE: Final = 256
"""At 20 ms a request, twice what S3 documents for one prefix; where it throttles, `pace` takes fewer."""
_MOST_REQUESTS: Final = 32
_LEAST_REQUESTS: Final = 8

_Item = TypeVar("_Item")
ByteRange: TypeAlias = tuple[int, int]
"""The first byte of a part of an object, and how many."""


class Listed(Protocol):
    """An object as it was listed, or pinned."""

    @property
    def key(self) -> str:
        """Below the root."""

    @property
    def size_bytes(self) -> int:
        """Of the content as it is stored."""

    @property
    def etag(self) -> str:
        """The object is read only as long as it has this one."""

    @property
    def version_id(self) -> str | None:
        """The version to read, where it is known."""


def requests_at_once(processes: int) -> int:
    """Return how many requests each of so many processes of one machine has at once."""
    return max(_LEAST_REQUESTS, min(_MOST_REQUESTS, _REQUESTS_OF_MACHINE // processes))


class ReadAhead:
    """The threads by which one process reads; several of its threads may use them. A context manager.

    Args:
        processes: how many of this machine read so at the same time.
    """

    def __init__(self, *, processes: int) -> None:
        self._threads = ThreadPoolExecutor(requests_at_once(processes), thread_name_prefix="read-ahead")

    def opened(
        self,
        storage: Storage,
        items: Iterable[_Item],
        listed: Callable[[_Item], Listed],
        part: Callable[[_Item], ByteRange | None] = lambda _: None,
    ) -> Generator[tuple[_Item, BinaryIO]]:
        """Yield every item, in order, with its object open as it was listed; closed when the next is requested.

        Close the generator where it is left early: it waits for what is being read.

        Args:
            storage: has the objects.
            items: each with an object.
            listed: returns the object of an item.
            part: returns which part of its object an item is; None for all of it.

        Raises:
            StorageError: when its turn comes, or from the stream: an object cannot be read, or is not as it was listed.
        """
        begun = self._ahead(storage, items, listed, part)
        if storage.is_near:
            begun = ((item, _begin(storage, listed(item), part(item))) for item in items)
        with closing(begun):
            for item, stream in begun:
                with closing(stream):
                    yield item, stream

    def _ahead(
        self,
        storage: Storage,
        items: Iterable[_Item],
        listed: Callable[[_Item], Listed],
        part: Callable[[_Item], ByteRange | None],
    ) -> Generator[tuple[_Item, BinaryIO]]:
        ahead: deque[tuple[_Item, int, Future[BinaryIO]]] = deque()
        ahead_bytes = 0
        upcoming = iter(items)
        is_more = True
        try:
            while is_more or ahead:
                while is_more and (not ahead or (len(ahead) < _AHEAD_OBJECTS and ahead_bytes < _AHEAD_BYTES)):
                    for item in upcoming:
                        stored = listed(item)
                        begun = self._threads.submit(_begin, storage, stored, part(item))
                        ahead.append((item, stored.size_bytes, begun))
                        ahead_bytes += stored.size_bytes
                        break
                    else:
                        is_more = False
                if ahead:
                    item, size_bytes, begun = ahead.popleft()
                    ahead_bytes -= size_bytes
                    yield item, begun.result()
        finally:
            for _, _, begun in ahead:
                if not begun.cancel():
                    with suppress(StorageError):  # of objects that are no longer read
                        begun.result().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown()


def _begin(storage: Storage, stored: Listed, part: ByteRange | None) -> BinaryIO:
    if part:
        first_byte, count = part
        version = {"etag": stored.etag, "version_id": stored.version_id}
        return storage.open(stored.key, **version, first_byte=first_byte, byte_count=count)
    if stored.size_bytes <= _SMALL_BYTES:
        return io.BytesIO(storage.read_small(stored.key, etag=stored.etag, version_id=stored.version_id))
    return storage.open(stored.key, etag=stored.etag, version_id=stored.version_id)
