"""Proves by content, not by name, that a coalesced object holds raw objects, so that these may be deleted.

Needed where the coalesced object existed before this run: an earlier run (ours or another coalescer's) was killed
between upload and delete, or the raw objects were written again. A raw object is held if each of its gzip members is,
byte for byte. Imported by `run` only.
"""

from collections import Counter
from collections.abc import Sequence

from cdi_dagster.coalescer.gzip_part import GzipPart, Member, UnreadablePartError
from cdi_dagster.coalescer.merge import BatchError, inflate
from cdi_dagster.coalescer.raw_objects import Source
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.storage.interface import Storage


def require_holds(storage: Storage, coalesced: StoredObject, sources: Sequence[Source]) -> None:
    """Raise unless the coalesced object holds every source, with no record joined to the next.

    Raises:
        BatchError: it does not, or one of them is not complete gzip.
        StorageError: one of them cannot be read, or changed during the check.
    """
    inside = _members(storage, coalesced)
    available = Counter(member.sha256 for member in inside)
    glued = {
        member.sha256
        for member, after in zip(inside, inside[1:], strict=False)
        if not member.ends_with_newline and not after.starts_with_newline
    }
    for source in sources:
        members = _members(storage, source.stored)
        if members and members[-1].sha256 in glued:
            raise BatchError(
                f"{coalesced.key} holds {source.stored.key}, but its last record is joined to the next one. Move "
                f"{coalesced.key.rsplit('/', 1)[-1]} away if all its raw objects are still there, then run the "
                "coalescer again."
            )
        available.subtract(member.sha256 for member in members)
        if any(available[member.sha256] < 0 for member in members):
            raise BatchError(
                f"{coalesced.key} exists already and states the offsets of {source.stored.key}, but does not hold "
                "it. Neither was changed. Find out which of the two holds the records and move the other away, then "
                "run the coalescer again."
            )


def _members(storage: Storage, stored: StoredObject) -> list[Member]:
    """Return the members that are not empty."""
    members: list[Member] = []
    part = GzipPart(members.append)
    try:
        with storage.open(stored.key, etag=stored.etag) as stream:
            inflate(part, stream)
    except UnreadablePartError as error:
        raise BatchError(
            f"{stored.key} cannot be read: {error}. Fix it or move it away, then run the coalescer again."
        ) from error
    return [member for member in members if not member.is_empty]
