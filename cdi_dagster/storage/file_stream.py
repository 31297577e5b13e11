"""Reads one file as one object: the same content from the first byte to the last, or an error.

For `files` only.
"""

import io
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from cdi_dagster.core.listing import StoredObject
from cdi_dagster.storage.file_system import storage_error
from cdi_dagster.storage.interface import ObjectChangedError, ObjectMissingError
from cdi_dagster.storage.keys import require_range


def etag_of(status: os.stat_result) -> str:
    """Return a file's ETag: inode, modification time and size. Needs no read; a rename does not change it."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def described(key: str, status: os.stat_result) -> StoredObject:
    """Return a file's description, as in a listing."""
    return StoredObject(
        key=key,
        size_bytes=status.st_size,
        etag=etag_of(status),
        version_id=None,
        modified_at=datetime.fromtimestamp(status.st_mtime_ns // 10**3 / 10**6, tz=UTC),
    )


def open_file(
    path: Path, uri: str, *, etag: str | None, first_byte: int, byte_count: int | None = None
) -> "FileStream":
    """Open a file as an object.

    Args:
        path: the file.
        uri: its name for messages.
        etag: the expected ETag, or None for the current object.
        first_byte: where to start; beyond the end there is nothing to read.
        byte_count: most bytes to read; None to read to the end.

    Raises:
        ValueError: `first_byte` is negative, or `byte_count` below 1.
        OSError: it cannot be opened.
        ObjectMissingError: it is not a regular file.
        ObjectChangedError: its ETag is not `etag`.
    """
    require_range(first_byte, byte_count)
    # O_NONBLOCK: a named pipe must not hang us; it makes no difference to a regular file.
    file = io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), closefd=True)
    try:
        status = os.fstat(file.fileno())
        _require_regular(status, uri)
        _require(etag or etag_of(status), status, uri)
        file.seek(first_byte)
        until = None if byte_count is None else first_byte + byte_count
        return FileStream(file, path, uri, opened_as=status, position=first_byte, until=until)
    except BaseException:
        file.close()
        raise


def _require_regular(status: os.stat_result, uri: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ObjectMissingError(f"{uri} is not a regular file, so there is no object of that name.")


def _require(etag: str, status: os.stat_result, uri: str) -> None:
    present = etag_of(status)
    if present != etag:
        raise ObjectChangedError(f"{uri} has changed: its ETag is {present}, expected was {etag}.")


class FileStream(io.RawIOBase):
    """An open file that must not change: checked at the end of what is read, or when it is closed before."""

    def __init__(
        self, file: io.FileIO, path: Path, uri: str, *, opened_as: os.stat_result, position: int, until: int | None
    ) -> None:
        super().__init__()
        self._file = file
        self._path = path
        self._uri = uri
        self._etag = etag_of(opened_as)
        self._size_bytes = opened_as.st_size
        self._position = position
        self._until = until
        self._is_checked = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read up to the buffer's length; 0 at the end."""
        if self._until is not None:
            buffer = memoryview(buffer)[: self._until - self._position]  # `readall` gives a bytearray
        try:
            count = self._file.readinto(buffer) or 0
        except OSError as error:
            raise storage_error(error, "read", self._uri, self._path) from error
        self._position += count
        if self._position > self._size_bytes or self._position == self._until or (count == 0 and len(buffer)):
            self._check()
        return count

    def close(self) -> None:
        """Check that the object is unchanged, unless that was done at its end; close."""
        if self.closed:
            return
        try:
            if not self._is_checked:
                self._check()
        finally:
            self._file.close()
            super().close()

    def _check(self) -> None:
        self._is_checked = True
        _require(self._etag, os.fstat(self._file.fileno()), self._uri)
