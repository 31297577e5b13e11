"""The files that one task writes below a prefix: each made durable, and visible once the driver publishes it.

What is in a file is the business of the two writers: `ingest.writing` (records, rejects) and `tables.orc_parts` (rows).
"""

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from cdi_dagster.storage import Storage, Upload

_Written = TypeVar("_Written")


class OpenFile(Generic[_Written]):
    """One file being written."""

    def __init__(self, upload: Upload) -> None:
        self._stack = ExitStack()
        self._upload = self._stack.enter_context(upload)

    def prepare(self) -> _Written:
        """Make the file durable and return what publishes it."""
        with self._stack:
            return self._prepared()

    def abort(self) -> None:
        """Give the file up: nothing of it stays."""
        with self._stack:
            self._upload.abort()

    def _prepared(self) -> _Written:
        raise NotImplementedError


_File = TypeVar("_File", bound=OpenFile[Any])


class NumberedParts(Generic[_File, _Written]):
    """As many files as a task needs; none for nothing. Leaving the context gives up the file that is open.

    The files are numbered `task_index`, `task_index + stride`, ...: unique over all tasks without coordination.

    Args:
        storage: where to.
        prefix: of the files, ending in `/`.
        ending: of every file's name: an id that no two publications share, and the suffix.
        group: upload group: the correlation id.
        task_index: number of this task.
        stride: how many tasks there are.
    """

    def __init__(self, storage: Storage, prefix: str, *, ending: str, group: str, task_index: int, stride: int) -> None:
        self._storage = storage
        self._prefix = prefix
        self._ending = ending
        self._group = group
        self._number = task_index
        self._stride = stride
        self._file: _File | None = None
        self._written: list[_Written] = []

    def finish(self) -> tuple[_Written, ...]:
        """Make every file durable and return what publishes them."""
        self._close_file()
        return tuple(self._written)

    def _new_file(self, upload: Upload) -> _File:
        raise NotImplementedError

    def _open_file(self) -> _File:
        """Return the file that is open, or the next one."""
        if self._file is None:
            key = f"{self._prefix}part-{self._number:05d}-{self._ending}"
            self._file = self._new_file(self._storage.upload(key, group=self._group))
            self._number += self._stride
        return self._file

    def _close_file(self) -> None:
        if self._file is not None:
            self._written.append(self._file.prepare())
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.abort()
