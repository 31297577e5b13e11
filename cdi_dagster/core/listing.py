"""One object as a listing shows it, and the fingerprint over a listing."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """One object under a root.

    Attributes:
        key: path below the root, `/` between its parts.
        size_bytes: size as stored.
        etag: opaque; changes whenever the content is written again.
        version_id: version of the object where the bucket is versioned and it is known, else None.
        modified_at: when it was written (aware, UTC).
    """

    key: str
    size_bytes: int
    etag: str
    version_id: str | None
    modified_at: datetime


class ListingDigest:
    """Makes `listing_fingerprint` of a listing that goes by in key order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._key = ""

    def add(self, stored: StoredObject) -> None:
        """Add the next object.

        Raises:
            ValueError: its key is not after the one before.
        """
        if stored.key <= self._key:
            raise ValueError(f"The listing is not in key order: {stored.key!r} comes after {self._key!r}.")
        self._key = stored.key
        self._digest.update(f"{stored.key}\t{stored.size_bytes}\t{stored.etag}\n".encode())

    def fingerprint(self) -> str:
        """Return the fingerprint of what was added."""
        return self._digest.hexdigest()


def listing_fingerprint(objects: Iterable[StoredObject]) -> str:
    """Return 64 hex digits that change when any object of the listing is added, removed or written again.

    Over key, size and ETag of every object, in key order. The order of `objects`, version ids and times do not matter.
    """
    digest = hashlib.sha256()
    for stored in sorted(objects, key=lambda stored: stored.key):
        digest.update(f"{stored.key}\t{stored.size_bytes}\t{stored.etag}\n".encode())
    return digest.hexdigest()
