"""Writes one file as one object: first in the staging folder, then atomically under its name.

For `files` only.
"""

import io
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cdi_dagster.core.listing import StoredObject
from cdi_dagster.storage.file_stream import described, etag_of
from cdi_dagster.storage.file_system import (
    FILE_MODE,
    in_folder,
    new_file,
    remove_empty_folders,
    storage_errors,
    sync_folder,
)
from cdi_dagster.storage.interface import ObjectChangedError, ObjectExistsError, PreparedObject, StorageError

_BUFFER_BYTES = 256 * 1024


class FileUpload:
    """An `Upload` to a folder.

    Args:
        key: key of the object.
        uri: its name for messages.
        target: file of the object.
        staging: the root's staging folder.
        folder: folder below `staging/uploads` for the staged file.
        keep: that folder or one above it, which stays although it is empty.
        lock: returns the lock that every writer of the key holds.
        if_absent: refuse to replace anything.
        if_match: refuse to replace anything but the object with this ETag.
    """

    def __init__(
        self,
        key: str,
        uri: str,
        *,
        target: Path,
        staging: Path,
        folder: Path,
        keep: Path,
        lock: Callable[[], AbstractContextManager[None]],
        if_absent: bool,
        if_match: str | None,
    ) -> None:
        if if_absent and if_match is not None:
            raise ValueError("if_absent and if_match exclude each other.")
        self._key = key
        self._uri = uri
        self._target = target
        self._staging = staging
        self._keep = keep
        self._staged = folder / uuid.uuid4().hex
        self._lock = lock
        self._if_absent = if_absent
        self._if_match = if_match
        self._ended = False
        with storage_errors("write", uri, folder):
            self._file = in_folder(folder, self._create)

    def _create(self) -> io.BufferedWriter:
        return io.BufferedWriter(new_file(self._staged), _BUFFER_BYTES)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes."""
        with storage_errors("write", self._uri, self._staged):
            return self._open_file().write(data)

    def complete(self) -> StoredObject:
        """Make the object appear as a whole."""
        with self._aborted_on_failure("write"):
            self._finish()
            status = in_folder(self._target.parent, self._put_in_place)
            with suppress(FileNotFoundError):  # deleted again since, with its folder
                sync_folder(self._target.parent)
        self.abort()
        return described(self._key, status)

    def _put_in_place(self) -> os.stat_result:
        with self._lock():
            self._require_condition()
            os.replace(self._staged, self._target)
            return self._target.stat()

    def _require_condition(self) -> None:
        try:
            present = self._target.lstat()
        except FileNotFoundError:
            present = None
        if self._if_absent and present is not None:
            raise ObjectExistsError(f"{self._uri} exists already; it was not changed.")
        if self._if_match is not None:
            found = etag_of(present) if present and stat.S_ISREG(present.st_mode) else None
            if found != self._if_match:
                raise ObjectChangedError(
                    f"{self._uri} has ETag {found}, expected was {self._if_match}; it was not changed."
                )

    def prepare(self) -> PreparedObject:
        """Store the bytes durably in the staging folder."""
        with self._aborted_on_failure("prepare"):
            size_bytes = self._finish()
            sync_folder(self._staged.parent)
        self._ended = True
        staged = self._staged.relative_to(self._staging).as_posix()
        return PreparedObject(key=self._key, size_bytes=size_bytes, token={"staged": staged})

    def abort(self) -> None:
        """Remove the staged file; does nothing after complete, prepare or abort."""
        if self._ended:
            return
        self._ended = True
        self._file.raw.close()  # without flushing: the disk may be full
        with storage_errors("clean up after", self._uri, self._staged):
            self._staged.unlink(missing_ok=True)
            remove_empty_folders(self._staged.parent, below=self._keep)

    def _finish(self) -> int:
        """Flush, sync and close; return the size in bytes."""
        file = self._open_file()
        file.flush()
        # Our own time in nanoseconds: the kernel's has steps of 4 ms, within which a freed inode can be reused for a
        # file of the same size and so of the same ETag.
        now = time.time_ns()
        os.utime(file.fileno(), ns=(now, now))
        os.fsync(file.fileno())
        size_bytes = os.fstat(file.fileno()).st_size
        file.close()
        return size_bytes

    @contextmanager
    def _aborted_on_failure(self, doing: str) -> Iterator[None]:
        try:
            with storage_errors(doing, self._uri, self._target):
                yield
        except BaseException:
            self.abort()
            raise

    def _open_file(self) -> io.BufferedWriter:
        if self._ended or self._file.closed:
            raise StorageError(f"The upload to {self._uri} has ended: start another one.")
        return self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def stage_file(path: Path, folder: Path) -> tuple[Path, int]:
    """Move a file that another program wrote into a staging folder, durably; return where it is, and its size."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        size_bytes = os.fstat(file.fileno()).st_size
    path.chmod(FILE_MODE)
    staged = folder / uuid.uuid4().hex
    in_folder(folder, lambda: os.rename(path, staged))
    sync_folder(folder)
    return staged, size_bytes
