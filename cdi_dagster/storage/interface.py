"""The contract of every storage: the Protocols and their errors.

Keys are relative to the root, `/` between parts, never starting with `/`, without empty parts, `.` or `..`; a key is
not also a folder of other keys. A key is whole or absent: no reader sees half an object. What `keys.RESERVED_PREFIXES`
names below a root belongs to the storage itself. All methods raise `StorageError` or a subclass, whose
message names root and key and what to do. Storages are thread-safe and can be pickled.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from cdi_dagster.core.listing import StoredObject


class StorageError(Exception):
    """A storage operation failed; the message names root, key and operation."""


class ObjectMissingError(StorageError):
    """The object (or the requested version) is not there."""


class ObjectChangedError(StorageError):
    """The object is there, but its ETag is not the expected one."""


class ObjectExistsError(StorageError):
    """A write that must not replace anything found that the key exists."""


class NoObjectError(StorageError):
    """What has an object's name is none: a link to nothing or out of the root, a pipe, a name that cannot be a key."""


class StorageUnavailableError(StorageError):
    """The storage did not answer, refused access, or is full, after the retries that make sense."""


class StorageFullError(StorageUnavailableError):
    """A disk or quota is full, or the storage is not writable: somebody has to free space or give access."""


class TransientStorageError(StorageUnavailableError):
    """The storage did not answer, or throttled us: a later retry may succeed."""


@dataclass(frozen=True, kw_only=True)
class PreparedObject:
    """An object stored durably but not visible yet: `Storage.publish` makes it appear.

    Crosses processes (a Spark worker prepares, the driver publishes), so `token` holds plain JSON values only.

    Attributes:
        key: the key it will have.
        size_bytes: its size.
        token: what the storage needs to make it appear (a staged path; an upload id and its part ETags).
    """

    key: str
    size_bytes: int
    token: Mapping[str, Any]


class Upload(Protocol):
    """One object being written in pieces, in bounded memory. An exception in the `with` block aborts it."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes."""

    def complete(self) -> StoredObject:
        """Make the whole object appear, replacing one of the same key (or ObjectExistsError, if opened so)."""

    def prepare(self) -> PreparedObject:
        """Store the bytes durably without making the object appear."""

    def abort(self) -> None:
        """Discard the bytes; does nothing after complete, prepare or abort."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Storage(Protocol):
    """Objects under one root."""

    @property
    def root(self) -> str:
        """The root URI, without a trailing slash."""

    @property
    def is_near(self) -> bool:
        """Whether opening an object is so quick that opening it ahead gains nothing."""

    def uri(self, key: str) -> str:
        """Return the full URI of a key."""

    def list(self, prefix: str, *, versions: bool = False) -> Iterator[StoredObject]:
        """Yield every object whose key starts with `prefix` (a prefix that ends in `/`), in key order, all pages.

        Nothing under the prefix yields nothing. With `versions`, version ids are filled in where the bucket is
        versioned: S3 then lists what was deleted too, so only for what will be read by its version.
        """

    def head(self, key: str) -> StoredObject | None:
        """Return the object's description, or None where there is none. If unclear: StorageError, never None."""

    def open(
        self,
        key: str,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        first_byte: int = 0,
        byte_count: int | None = None,
    ) -> BinaryIO:
        """Open for streaming from `first_byte`, in bounded memory; a lost connection is resumed.

        With `byte_count` so many bytes are read at most, and S3 sends no more.

        With `version_id` that version is read; with `etag` the read fails with ObjectChangedError, at open or at any
        later read, as soon as the object is another one. Raises ObjectMissingError where it is gone. Even without
        either, bytes of two objects never mix: the opened object is read to its end, or ObjectChangedError.
        Beyond the end there is nothing to read.
        """

    def read(self, key: str) -> bytes:
        """Return a small object's bytes. Raises ObjectMissingError."""

    def read_small(self, key: str, *, etag: str, version_id: str | None = None) -> bytes:
        """Return the bytes of one of very many small objects, as `open` would: cheaply, if it is as it was listed.

        For content that has checksums of its own, as gzip has: on the way it may not be compared with the storage's.
        """

    def write(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> StoredObject:
        """Write a small object, atomically.

        `if_absent` raises ObjectExistsError where the key exists; `if_match` raises ObjectChangedError unless the
        present object has that ETag. Both are safe against races.
        """

    def upload(self, key: str, *, if_absent: bool = False, group: str | None = None) -> Upload:
        """Start writing one object in pieces.

        `group` names its owner (a run's correlation id), so that `discard` finds the uploads of a killed process.
        """

    def prepare_stored(self, source: str, key: str, *, group: str) -> PreparedObject:
        """Prepare an object from a stored one, under another key, without its bytes coming here.

        For what another program (Spark) wrote below the root, where nobody reads. The source may be gone afterwards:
        delete it. `group` as in `upload`. Raises ObjectMissingError.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; an absent one is fine. Raises StorageError naming every key that could not be deleted."""

    def publish(self, prefix: str, prepared: Sequence[PreparedObject], mark: bytes, *, group: str) -> None:
        """Make `prefix` hold exactly the prepared objects and a `_SUCCESS` object with `mark`, written last.

        Complete or unchanged, whenever this process is killed: `recover` (called here first) finishes or discards a
        killed publication. `prefix` ends with `/`; every prepared key starts with it. On S3 the prefix has no
        `_SUCCESS` while objects change (docs/adr/0001), and the caller ensures one publisher per prefix at a time.

        Raises:
            ObjectMissingError: a prepared object's upload is gone; nothing was changed.
        """

    def recover(self, prefix: str) -> None:
        """Finish every publication to `prefix`, or below it, that a killed process had decided."""

    def discard(self, prefix: str, *, group: str | None) -> None:
        """Discard every upload to `prefix` started under `group` that is neither completed nor decided to be published.

        With `group=None` those of every group: only where nobody else works on the prefix. Uploads that were
        started without a group are never touched.
        """
