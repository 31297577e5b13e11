"""The pinned input: the exact list of objects that a run reads, decided before anything is launched.

`pin` is the pure decision from a listing: which objects are read, which are left out and why, which offsets are
missing. It fails on what it cannot resolve. Writing the manifest is `cdi_dagster.ingestion.pinning`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from os.path import commonprefix
from typing import Any

from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.listing import StoredObject, listing_fingerprint
from cdi_dagster.core.object_names import (
    InvalidObjectNameError,
    ObjectName,
    parse_object_name,
    parse_object_of_day,
)

FORMAT_VERSION = 2
"""Of the manifest. Format 1, which `to_json` shows to people, is still read."""
_SHOWN_VERSION = 1
RESTORE_MANIFEST = (
    "Restore it from a version of the bucket or a backup. Otherwise run the day with allow_fewer_offsets where you "
    "have checked that its objects are complete: that writes it again, without looking for lost offsets."
)
"""What to do where a manifest cannot be read: a pin compares the day with it, and fails in the same way."""


@dataclass(frozen=True, kw_only=True)
class PinnedObject:
    """One object that the run reads, and what must not have changed when it is read.

    Attributes:
        key: path below the corporate root.
        size_bytes: size when pinned.
        etag: ETag when pinned.
        version_id: version, where the bucket is versioned: that version is read, whatever is written later.
        parsed: `name`, where it is known already: parsing is most of a pin's CPU.
    """

    key: str
    size_bytes: int
    etag: str
    version_id: str | None
    parsed: ObjectName | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> ObjectName:
        """The object's name, parsed."""
        return self.parsed or parse_object_name(self.key)


@dataclass(frozen=True, kw_only=True)
class LeftOutObject:
    """An object of the day that is not read, because another pinned one holds the same records."""

    key: str
    covered_by: str
    why: str


@dataclass(frozen=True, kw_only=True)
class OffsetGap:
    """Offsets (inclusive) of one Kafka partition between two pinned objects that no object states."""

    kafka_partition: int
    first_offset: int
    last_offset: int

    @property
    def offset_count(self) -> int:
        """How many offsets are missing."""
        return self.last_offset - self.first_offset + 1


@dataclass(frozen=True, kw_only=True)
class PinnedInput:
    """Exactly what one run of one collection and storage day reads.

    Attributes:
        collection_id: `db:name`.
        storage_day: the partition.
        corporate_root: root URI below which the keys lie.
        fingerprint: over the whole listing of the day, left-out objects included.
        objects: in order of Kafka partition and offset.
        left_out: objects whose records another pinned object holds.
        gaps: missing offsets between pinned objects.
    """

    collection_id: str
    storage_day: date
    corporate_root: str
    fingerprint: str
    objects: tuple[PinnedObject, ...]
    left_out: tuple[LeftOutObject, ...]
    gaps: tuple[OffsetGap, ...]

    @property
    def input_bytes(self) -> int:
        """Compressed bytes to read."""
        return sum(pinned.size_bytes for pinned in self.objects)

    @property
    def offset_count(self) -> int:
        """Offsets stated by the pinned objects: the records to expect."""
        return sum(pinned.name.offset_count for pinned in self.objects)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values for people and their programs; `from_json` reads it back."""
        return {
            "format_version": _SHOWN_VERSION,
            **self._head(),
            "objects": [
                {
                    "key": pinned.key,
                    "size_bytes": pinned.size_bytes,
                    "etag": pinned.etag,
                    "version_id": pinned.version_id,
                    "kafka_partition": pinned.name.kafka_partition,
                    "first_offset": pinned.name.first_offset,
                    "last_offset": pinned.name.last_offset,
                }
                for pinned in self.objects
            ],
            "left_out": [{"key": left.key, "covered_by": left.covered_by, "why": left.why} for left in self.left_out],
            "gaps": [
                {
                    "kafka_partition": gap.kafka_partition,
                    "first_offset": gap.first_offset,
                    "last_offset": gap.last_offset,
                }
                for gap in self.gaps
            ],
        }

    def to_manifest(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values: a list for each object, its key without what all share."""
        keys = [pinned.key for pinned in self.objects]
        prefix = commonprefix([min(keys), max(keys)]).rpartition("/")[0] if keys else ""
        return {
            "format_version": FORMAT_VERSION,
            **self._head(),
            "prefix": prefix,
            "objects": [
                (pinned.key[len(prefix) :], pinned.size_bytes, pinned.etag, pinned.version_id)
                for pinned in self.objects
            ],
            "left_out": [(left.key, left.covered_by, left.why) for left in self.left_out],
            "gaps": [(gap.kafka_partition, gap.first_offset, gap.last_offset) for gap in self.gaps],
        }

    def _head(self) -> dict[str, Any]:
        return {
            "collection": self.collection_id,
            "storage_day": self.storage_day.isoformat(),
            "corporate_root": self.corporate_root,
            "fingerprint": self.fingerprint,
            "totals": {"objects": len(self.objects), "bytes": self.input_bytes, "offsets": self.offset_count},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PinnedInput":
        """Read what `to_manifest` or `to_json` wrote, of this version or an earlier one.

        Raises:
            CdiError: INPUT_INVALID where it is not a manifest of this format.
        """
        try:
            lists_of = _LISTS_OF.get(value["format_version"])
            if lists_of is None:
                raise CdiError(
                    FailureClass.INPUT_INVALID,
                    f"The pinned input has format {value['format_version']}, but this version reads {FORMAT_VERSION}.",
                    next_step=RESTORE_MANIFEST,
                )
            objects, left_out, gaps = lists_of(value)
            return cls(
                collection_id=value["collection"],
                storage_day=date.fromisoformat(value["storage_day"]),
                corporate_root=value["corporate_root"],
                fingerprint=value["fingerprint"],
                objects=objects,
                left_out=left_out,
                gaps=gaps,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CdiError(
                FailureClass.INPUT_INVALID,
                f"The pinned input cannot be read: {type(error).__name__} at {error}.",
                next_step=RESTORE_MANIFEST,
            ) from error


_Lists = tuple[tuple[PinnedObject, ...], tuple[LeftOutObject, ...], tuple[OffsetGap, ...]]


def _lists_of_shown(value: Mapping[str, Any]) -> _Lists:
    fields = ("key", "size_bytes", "etag", "version_id")
    return (
        tuple(PinnedObject(**{name: row[name] for name in fields}) for row in value["objects"]),
        tuple(LeftOutObject(**row) for row in value["left_out"]),
        tuple(OffsetGap(**row) for row in value["gaps"]),
    )


def _lists_of_manifest(value: Mapping[str, Any]) -> _Lists:
    prefix = value["prefix"]
    return (
        tuple(
            PinnedObject(key=prefix + name, size_bytes=size_bytes, etag=etag, version_id=version_id)
            for name, size_bytes, etag, version_id in value["objects"]
        ),
        tuple(LeftOutObject(key=key, covered_by=covered_by, why=why) for key, covered_by, why in value["left_out"]),
        tuple(
            OffsetGap(kafka_partition=kafka_partition, first_offset=first, last_offset=last)
            for kafka_partition, first, last in value["gaps"]
        ),
    )


_LISTS_OF = {_SHOWN_VERSION: _lists_of_shown, FORMAT_VERSION: _lists_of_manifest}


@dataclass(frozen=True)
class _Candidate:
    stored: StoredObject
    name: ObjectName


def pin(day: CollectionDay, corporate_root: str, listing: Iterable[StoredObject]) -> PinnedInput:
    """Decide what a run reads, from everything listed under the collection's prefix of one storage day.

    A raw object whose offsets a coalesced one covers is left out: the coalescer died between upload and delete. So is
    an exact copy (same offsets, size and ETag) of a coalesced object. An empty listing gives an input without objects:
    the caller decides whether an empty day is allowed.

    Raises:
        CdiError: INPUT_INVALID, naming the object, where a name is not K2HB's, states another topic, an object is
            empty, or two objects overlap in a way that cannot be resolved.
    """
    stored_objects = list(listing)
    prefix = day.corporate_prefix
    candidates = [_candidate(day.collection, prefix, stored) for stored in stored_objects]
    by_partition: dict[int, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_partition[candidate.name.kafka_partition].append(candidate)

    pinned: list[_Candidate] = []
    left_out: list[LeftOutObject] = []
    gaps: list[OffsetGap] = []
    for kafka_partition in sorted(by_partition):
        kept, left = _resolve_overlaps(by_partition[kafka_partition])
        pinned += kept
        left_out += left
        gaps += _gaps(kafka_partition, kept)
    return PinnedInput(
        collection_id=day.collection.id,
        storage_day=day.storage_day,
        corporate_root=corporate_root,
        fingerprint=listing_fingerprint(stored_objects),
        objects=tuple(_pinned(candidate) for candidate in pinned),
        left_out=tuple(left_out),
        gaps=tuple(gaps),
    )


def _pinned(candidate: _Candidate) -> PinnedObject:
    stored = candidate.stored
    return PinnedObject(
        key=stored.key,
        size_bytes=stored.size_bytes,
        etag=stored.etag,
        version_id=stored.version_id,
        parsed=candidate.name,
    )


def _candidate(collection: Collection, prefix: str, stored: StoredObject) -> _Candidate:
    try:
        name = parse_object_of_day(prefix, stored.key)
    except InvalidObjectNameError as error:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{stored.key} cannot be pinned: {error}.",
            next_step="Rename it, or move it out of the day's folder (not into one below); with our own coalescer, run "
            "that for the day again; then run the day again.",
            detail={"key": stored.key},
        ) from error
    if name.topic != collection.topic:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{stored.key} is of topic {name.topic}, but {collection.id} is written to {collection.topic}.",
            detail={"key": stored.key},
        )
    if stored.size_bytes == 0:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{stored.key} is empty, though its name states {name.offset_count} records.",
            detail={"key": stored.key},
        )
    return _Candidate(stored, name)


def _resolve_overlaps(candidates: list[_Candidate]) -> tuple[list[_Candidate], list[LeftOutObject]]:
    """Split the objects of one Kafka partition into those to read, in offset order, and those to leave out."""
    # Widest first at the same offset, coalesced before raw: so an object that covers another comes before it.
    ordered = sorted(
        candidates,
        key=lambda c: (c.name.first_offset, -c.name.last_offset, not c.name.coalesced, c.name.copy, c.stored.key),
    )
    kept: list[_Candidate] = []
    left_out: list[LeftOutObject] = []
    for candidate in ordered:
        before = kept[-1] if kept else None
        if before is None or candidate.name.first_offset > before.name.last_offset:
            kept.append(candidate)
            continue
        why = _why_left_out(before, candidate)
        if why is None:
            raise CdiError(
                FailureClass.INPUT_INVALID,
                f"{candidate.stored.key} and {before.stored.key} both state offsets from "
                f"{candidate.name.first_offset} to {min(before.name.last_offset, candidate.name.last_offset)}; "
                "reading both would publish records twice.",
                next_step="Find out which of the two holds the records, and move the other out of the day's folder; "
                "with our own coalescer, run that for the day again; then run the day again.",
                detail={"keys": [before.stored.key, candidate.stored.key]},
            )
        left_out.append(LeftOutObject(key=candidate.stored.key, covered_by=before.stored.key, why=why))
    return kept, left_out


def _why_left_out(before: _Candidate, candidate: _Candidate) -> str | None:
    if not before.name.coalesced or not before.name.covers(candidate.name):
        return None
    if not candidate.name.coalesced:
        return "raw object already merged into a coalesced one"
    same = (
        before.name.offset_count == candidate.name.offset_count
        and before.stored.size_bytes == candidate.stored.size_bytes
        and before.stored.etag == candidate.stored.etag
    )
    return "exact copy of a coalesced object" if same else None


def _gaps(kafka_partition: int, kept: list[_Candidate]) -> list[OffsetGap]:
    return [
        OffsetGap(
            kafka_partition=kafka_partition,
            first_offset=before.name.last_offset + 1,
            last_offset=after.name.first_offset - 1,
        )
        for before, after in zip(kept, kept[1:], strict=False)
        if after.name.first_offset > before.name.last_offset + 1
    ]
