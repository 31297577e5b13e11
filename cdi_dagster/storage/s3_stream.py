"""Reads one S3 object as a stream that survives lost connections.

A lost connection is resumed at the current byte, under the same version id or If-Match, so that bytes of two objects
never mix (boto3 alone fails with IncompleteReadError). For `s3` only.
"""

import io
import logging
import time
from typing import Any

from botocore.exceptions import BotoCoreError, FlexibleChecksumError
from urllib3.exceptions import HTTPError

from cdi_dagster.storage.interface import ObjectChangedError, StorageUnavailableError, TransientStorageError
from cdi_dagster.storage.keys import require_range
from cdi_dagster.storage.s3_bucket import S3Bucket, code_of, etag_in, version_in

# Tries to resume without receiving a byte: 0.2 + 0.4 + ... + 6.4 s.
_MAX_FRUITLESS_TRIES = 6
_FIRST_PAUSE_SECONDS = 0.2

_log = logging.getLogger(__name__)


class S3Stream(io.RawIOBase):
    """The bytes of one version of one object, from `first_byte` on; opened by the constructor.

    Args:
        bucket: its bucket.
        key: key of the object, below the root.
        etag: the expected ETag, or None for the current object.
        version_id: the version to read, or None for the current one.
        first_byte: where to start; beyond the end there is nothing to read.
        byte_count: most bytes to read; None to read to the end.

    Raises:
        ObjectMissingError: it, or the version, is not there.
        ObjectChangedError: its ETag is not `etag`.
        StorageUnavailableError: S3 did not answer.
    """

    def __init__(
        self,
        bucket: S3Bucket,
        key: str,
        *,
        etag: str | None,
        version_id: str | None,
        first_byte: int,
        byte_count: int | None = None,
    ) -> None:
        super().__init__()
        require_range(first_byte, byte_count)
        self._bucket = bucket
        self._key = key
        self._etag = etag
        self._version_id = version_id
        self._position = first_byte
        self._until = None if byte_count is None else first_byte + byte_count
        self._size_bytes: int | None = None
        self._body: Any = None
        self._fruitless_tries = 0
        self._request()

    def _conditions(self) -> dict[str, Any]:
        conditions: dict[str, Any] = {"Key": self._bucket.full(self._key)}
        if self._etag is not None:
            conditions["IfMatch"] = f'"{self._etag}"'
        if self._version_id is not None:
            conditions["VersionId"] = self._version_id
        return conditions

    def _request(self) -> None:
        parameters = self._conditions()
        if self._position or self._until:
            parameters["Range"] = f"bytes={self._position}-{'' if self._until is None else self._until - 1}"
        try:
            answer = self._bucket.call("get_object", "read", self._key, **parameters)
        except StorageUnavailableError as error:
            if code_of(error) not in ("InvalidRange", "416") or self._size_bytes is not None:
                raise
            self._open_beyond_the_end()
            return
        size_bytes = _size_of_whole(answer)
        if self._size_bytes not in (None, size_bytes) or self._etag not in (None, etag_in(answer)):
            raise ObjectChangedError(f"{self._bucket.uri(self._key)} has changed since reading began.")
        self._size_bytes = size_bytes
        self._etag = etag_in(answer)
        self._version_id = self._version_id or version_in(answer)
        self._body = answer["Body"]

    @property
    def _end(self) -> int:
        size_bytes = self._size_bytes or 0
        return size_bytes if self._until is None else min(size_bytes, self._until)

    def _open_beyond_the_end(self) -> None:
        answer = self._bucket.call("head_object", "read", self._key, **self._conditions())
        self._size_bytes = answer["ContentLength"]

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read up to the buffer's length; 0 at the end. Resumes a lost connection."""
        while self._position < self._end and len(buffer):
            try:
                if self._body is None:
                    self._request()
                count: int = self._body.readinto(buffer)
            except FlexibleChecksumError as error:
                raise self._damaged(error) from error
            except (BotoCoreError, HTTPError, OSError) as error:
                self._pause_before_resuming(error)
                continue
            if count:
                self._position += count
                self._fruitless_tries = 0
                return self._checked(count)
            self._pause_before_resuming(None)
        return 0

    def _checked(self, count: int) -> int:
        """At the last byte read the body's end: only then botocore compares checksums."""
        if self._position == self._end and self._body is not None:
            try:
                self._body.read(1)
            except FlexibleChecksumError as error:
                raise self._damaged(error) from error
            except (BotoCoreError, HTTPError, OSError):
                _log.debug("connection lost after the last byte of %s", self._key)
        return count

    def _damaged(self, error: FlexibleChecksumError) -> TransientStorageError:
        return TransientStorageError(f"{self._bucket.uri(self._key)} was damaged in transit: {error} Run again.")

    def _pause_before_resuming(self, error: Exception | None) -> None:
        self._drop_body()
        self._fruitless_tries += 1
        position = f"{self._bucket.uri(self._key)} at byte {self._position} of {self._size_bytes}"
        if self._fruitless_tries > _MAX_FRUITLESS_TRIES:
            raise TransientStorageError(
                f"The connection was lost {self._fruitless_tries} times while reading {position}: {error}. "
                "Check the network, then run again."
            ) from error
        _log.warning("connection lost while reading %s, resuming: %s", position, error)
        time.sleep(_FIRST_PAUSE_SECONDS * 2 ** (self._fruitless_tries - 1))

    def _drop_body(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def close(self) -> None:
        """Release the connection."""
        if not self.closed:
            self._drop_body()
            super().close()


def _size_of_whole(answer: dict[str, Any]) -> int:
    content_range = answer.get("ContentRange")
    return int(content_range.rpartition("/")[2]) if content_range else int(answer["ContentLength"])
