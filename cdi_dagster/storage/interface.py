"""What every storage promises: the Protocols and their errors.

Keys are relative to the root, `/` between parts, never starting with `/`, without empty parts, `.` or `..`; a key is
not also a folder of other keys. A key is whole or absent: nobody ever sees half an object. `.cdi-staging/` and
`_publications/` below a root belong to the storage itself. All methods raise `StorageError` or a subclass, whose text
names root and key and says what to do. Storages may be used by several threads and cross processes by pickle.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from cdi_dagster.core.listing import StoredObject


class StorageError(Exception):
    """A storage operation failed; the text names root and key and says what was tried."""


class ObjectMissingError(StorageError):
    """The object (or the version asked for) is not there."""


class ObjectChangedError(StorageError):
    """The object is there, but its ETag is not the expected one."""


class ObjectExistsError(StorageError):
    """A write that must not replace anything found the name taken."""


class StorageUnavailableError(StorageError):
    """The storage did not answer, refused us, or is full, after the retries that make sense."""


class TransientStorageError(StorageUnavailableError):
    """The storage did not answer, or asked for patience: the same may succeed later without anybody's doing."""


@dataclass(frozen=True, kw_only=True)
class PreparedObject:
    """An object whose bytes are stored durably but that nobody can see yet: `Storage.publish` makes it appear.

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
    """One object being written in pieces, in bounded memory. Leaving the `with` block by an error aborts it."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes."""

    def complete(self) -> StoredObject:
        """Make the object appear, whole, replacing what had the key (or ObjectExistsError, if so opened)."""

    def prepare(self) -> PreparedObject:
        """Store the bytes durably without making the object appear."""

    def abort(self) -> None:
        """Forget the bytes; harmless after complete, prepare or abort."""

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
        """Whether an object is open in no time, so that opening it ahead gains nothing."""

    def uri(self, key: str) -> str:
        """Return the full URI of a key."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object whose key starts with `prefix` (a prefix that ends in `/`), in key order, all pages.

        Nothing under the prefix yields nothing. Version ids are filled in where the bucket is versioned.
        """

    def head(self, key: str) -> StoredObject | None:
        """Return the object's description, or None where there is none. Cannot tell -> StorageError, never None."""

    def open(
        self, key: str, *, etag: str | None = None, version_id: str | None = None, first_byte: int = 0
    ) -> BinaryIO:
        """Open for streaming from `first_byte`, in bounded memory, resuming by itself where a connection is cut.

        With `version_id` that version is read; with `etag` the read fails with ObjectChangedError, at open or at any
        later read, as soon as the object is another one. Raises ObjectMissingError where it is gone. Even without
        either, bytes of two objects never mix: what was opened is read to its end, or ObjectChangedError.
        Beyond the end there is nothing to read.
        """

    def read(self, key: str) -> bytes:
        """Return a small object's bytes. Raises ObjectMissingError."""

    def write(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> StoredObject:
        """Write a small object, atomically.

        `if_absent` raises ObjectExistsError where the key is taken; `if_match` raises ObjectChangedError unless the
        present object has that ETag. Both are safe against races.
        """

    def upload(self, key: str, *, if_absent: bool = False, group: str | None = None) -> Upload:
        """Begin writing one object in pieces.

        `group` names what it belongs to (a run's correlation id), so that `discard` finds what a killed process left.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; an absent one is fine. Raises StorageError naming every key that could not be deleted."""

    def publish(self, prefix: str, prepared: Sequence[PreparedObject], mark: bytes, *, group: str) -> None:
        """Make `prefix` hold exactly the prepared objects and a `_SUCCESS` object with `mark`, written last.

        Whole or as before, whenever this process is killed: `recover` (called here first) finishes or forgets what a
        killed publication began. `prefix` ends with `/`; every prepared key starts with it. On S3 the prefix has no
        `_SUCCESS` while objects change (docs/adr/0001), and one publisher per prefix at a time is the caller's duty.

        Raises:
            ObjectMissingError: a prepared object's upload is gone; nothing was changed.
        """

    def recover(self, prefix: str) -> None:
        """Finish every publication to `prefix`, or below it, that a killed process had decided."""

    def discard(self, prefix: str, *, group: str | None) -> None:
        """Forget every upload to `prefix` begun under `group` that is neither completed nor decided to be published.

        With `group=None` those of every group: only where nobody else is at work on the prefix. Uploads that were
        begun under no group are never touched.
        """
