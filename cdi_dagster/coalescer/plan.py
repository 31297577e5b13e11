"""Decides what to merge, from a listing. Pure: no storage, no clock. `run` carries the plan out.

A batch merges raw objects of one Kafka partition whose offsets follow each other without a gap. So a gap stays visible
between two names, and no batch states an offset that another object states. An object that cannot be merged safely is
left alone, with the reason.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.object_names import InvalidObjectNameError, ObjectName, parse_object_of_day

DEFAULT_MAX_BYTES = 128 * 1024 * 1024
"""The size that the coalescer in use makes: about one Spark task an object."""
DEFAULT_MAX_OBJECTS = 10_000
"""Bounds the memory and the journal of a batch (about 300 bytes an object)."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One raw object to be merged."""

    stored: StoredObject
    name: ObjectName


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Raw objects, in offset order, that become (or already are) one coalesced object.

    Attributes:
        key: of the coalesced object.
        sources: two or more raw objects without a gap between their offsets; where `stored_as` is set, one or more
            that lie within its offsets.
        stored_as: a coalesced object that is there already and states their offsets: an earlier run was killed
            between upload and delete, or the raw objects were written again. `proof` checks that it holds them.
    """

    key: str
    sources: tuple[Source, ...]
    stored_as: StoredObject | None = None

    @property
    def size_bytes(self) -> int:
        """Compressed bytes of the sources."""
        return sum(source.stored.size_bytes for source in self.sources)


@dataclass(frozen=True, kw_only=True)
class LeftAlone:
    """An object that stays as it is.

    Attributes:
        key: path below the corporate root.
        why: one sentence.
        expected: whether that is normal (a single raw object, a coalesced object) or should be checked.
    """

    key: str
    why: str
    expected: bool = True


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every listed object appears exactly once: as a source of one batch, or left alone.

    Attributes:
        batches: what is merged.
        left_alone: what stays.
        conflicts: sentences about coalesced objects that overlap: the day cannot be complete.
    """

    batches: tuple[Batch, ...]
    left_alone: tuple[LeftAlone, ...]
    conflicts: tuple[str, ...] = ()

    @property
    def source_count(self) -> int:
        """Raw objects to merge."""
        return sum(len(batch.sources) for batch in self.batches)

    @property
    def source_bytes(self) -> int:
        """Compressed bytes to merge."""
        return sum(batch.size_bytes for batch in self.batches)


def plan_batches(
    collection: Collection,
    prefix: str,
    listing: Iterable[StoredObject],
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    max_objects: int = DEFAULT_MAX_OBJECTS,
) -> Plan:
    """Decide which raw objects are merged into which coalesced object.

    Args:
        collection: whose objects they are.
        prefix: of the storage day, ending in `/`; objects in folders below it are left alone.
        listing: everything under the prefix.
        max_bytes: most compressed bytes of the sources of one batch. (Batches that only complete an existing
            coalesced object are as large as that is.)
        max_objects: most sources of one batch.

    Raises:
        ValueError: a limit below 1.
    """
    if max_bytes < 1 or max_objects < 1:
        raise ValueError("max_bytes and max_objects must each be 1 or more")
    left_alone: list[LeftAlone] = []
    named: list[Source] = []
    for stored in listing:
        named_or_left = _named(collection, prefix, stored)
        if isinstance(named_or_left, Source):
            named.append(named_or_left)
        else:
            left_alone.append(named_or_left)

    batches: list[Batch] = []
    conflicts: list[str] = []
    for _, of_partition in groupby(sorted(named, key=_offset_order), key=lambda source: source.name.kafka_partition):
        members = list(of_partition)
        coalesced = [member for member in members if member.name.coalesced]
        left_alone += [LeftAlone(key=c.stored.key, why="it is a coalesced object") for c in coalesced]
        raw, left = _without_overlaps([member for member in members if not member.name.coalesced])
        left_alone += left
        begun, free, left = _already_stored(raw, coalesced)
        overlapping, sentences = _coalesced_overlaps(coalesced)
        conflicts += sentences
        for batch in begun:
            if batch.key in overlapping:  # it is not known which of the two stays: the raw objects may be needed
                left_alone += [_overlapping(source.stored.key, batch.key) for source in batch.sources]
            else:
                batches.append(batch)
        left_alone += left
        for run in _contiguous_runs(free):
            for sources in _within_limits(run, max_bytes, max_objects):
                if len(sources) == 1:
                    left_alone.append(LeftAlone(key=sources[0].stored.key, why="nothing to merge it with"))
                else:
                    batches.append(Batch(key=f"{prefix}{_coalesced_name(sources)}", sources=tuple(sources)))
    return Plan(batches=tuple(batches), left_alone=tuple(left_alone), conflicts=tuple(conflicts))


def _named(collection: Collection, prefix: str, stored: StoredObject) -> Source | LeftAlone:
    try:
        name = parse_object_of_day(prefix, stored.key)
    except InvalidObjectNameError as error:
        return LeftAlone(key=stored.key, why=str(error), expected=False)
    if name.topic != collection.topic:
        why = f"it is of topic {name.topic}, but {collection.id} is written to {collection.topic}"
        return LeftAlone(key=stored.key, why=why, expected=False)
    if not name.coalesced and name.copy > 1:
        return LeftAlone(key=stored.key, why="K2HB writes no numbered copies of raw objects", expected=False)
    return Source(stored=stored, name=name)


def _offset_order(source: Source) -> tuple[int, int, int, int, str]:
    name = source.name
    return (name.kafka_partition, name.first_offset, name.last_offset, name.copy, source.stored.key)


def _without_overlaps(raw: Sequence[Source]) -> tuple[list[Source], list[LeftAlone]]:
    """Split off raw objects that share offsets with another raw object."""
    overlapping: dict[str, str] = {}
    widest: Source | None = None  # of those before: whatever overlaps any of them overlaps this one
    for source in raw:
        if widest and source.name.first_offset <= widest.name.last_offset:
            overlapping[source.stored.key] = widest.stored.key
            overlapping.setdefault(widest.stored.key, source.stored.key)
        if widest is None or source.name.last_offset > widest.name.last_offset:
            widest = source
    kept = [source for source in raw if source.stored.key not in overlapping]
    return kept, [_overlapping(key, other) for key, other in overlapping.items()]


def _overlapping(key: str, other: str) -> LeftAlone:
    return LeftAlone(key=key, why=f"{other} states some of the same offsets", expected=False)


def _coalesced_overlaps(coalesced: Sequence[Source]) -> tuple[set[str], list[str]]:
    """Return the keys of coalesced objects that overlap, with a sentence for each pair; exact copies do no harm."""
    keys: set[str] = set()
    sentences: list[str] = []
    widest: Source | None = None
    for member in coalesced:
        if widest and member.name.first_offset <= widest.name.last_offset and not _is_copy(widest, member):
            span = f"{member.name.first_offset} to {min(widest.name.last_offset, member.name.last_offset)}"
            keys |= {widest.stored.key, member.stored.key}
            sentences.append(
                f"{widest.stored.key} and {member.stored.key} both state the offsets {span} of Kafka partition "
                f"{member.name.kafka_partition}. Neither was changed. Find out which of the two holds the records and "
                "move the other away, then run the coalescer again."
            )
        if widest is None or member.name.last_offset > widest.name.last_offset:
            widest = member
    return keys, sentences


def _is_copy(one: Source, other: Source) -> bool:
    """Whether two coalesced objects are the same for the pin, which leaves one of them out."""
    offsets = (one.name.first_offset, one.name.last_offset) == (other.name.first_offset, other.name.last_offset)
    return offsets and (one.stored.size_bytes, one.stored.etag) == (other.stored.size_bytes, other.stored.etag)


class _Coalesced:
    """An index of one Kafka partition's coalesced objects by offset."""

    def __init__(self, members: Sequence[Source]) -> None:
        self._members = members
        self._firsts = [member.name.first_offset for member in members]
        self._reach = list(accumulate((member.name.last_offset for member in members), max))

    def sharing_offsets_with(self, name: ObjectName) -> list[Source]:
        found = []
        for index in range(bisect_right(self._firsts, name.last_offset) - 1, -1, -1):
            if self._reach[index] < name.first_offset:
                break
            if self._members[index].name.last_offset >= name.first_offset:
                found.append(self._members[index])
        return found[::-1]


def _already_stored(
    raw: Sequence[Source], coalesced: Sequence[Source]
) -> tuple[list[Batch], list[Source], list[LeftAlone]]:
    """Split off the raw objects whose offsets a coalesced object states; the rest is free to be merged."""
    stored = _Coalesced(coalesced)
    free: list[Source] = []
    left_alone: list[LeftAlone] = []
    covered_by: dict[str, tuple[Source, list[Source]]] = {}
    for source in raw:
        sharing = stored.sharing_offsets_with(source.name)
        covering = next((merged for merged in sharing if merged.name.covers(source.name)), None)
        if covering:
            covered_by.setdefault(covering.stored.key, (covering, []))[1].append(source)
        elif sharing:
            left_alone.append(_overlapping(source.stored.key, sharing[0].stored.key))
        else:
            free.append(source)
    batches = [
        Batch(key=merged.stored.key, sources=tuple(covered), stored_as=merged.stored)
        for merged, covered in covered_by.values()
    ]
    return batches, free, left_alone


def _contiguous_runs(sources: Sequence[Source]) -> Iterator[list[Source]]:
    run: list[Source] = []
    for source in sources:
        if run and source.name.first_offset != run[-1].name.last_offset + 1:
            yield run
            run = []
        run.append(source)
    if run:
        yield run


def _within_limits(run: Sequence[Source], max_bytes: int, max_objects: int) -> Iterator[list[Source]]:
    batch: list[Source] = []
    size_bytes = 0
    for source in run:
        if batch and (size_bytes + source.stored.size_bytes > max_bytes or len(batch) >= max_objects):
            yield batch
            batch, size_bytes = [], 0
        batch.append(source)
        size_bytes += source.stored.size_bytes
    if batch:
        yield batch


def _coalesced_name(sources: Sequence[Source]) -> ObjectName:
    first, last = sources[0].name, sources[-1].name
    return ObjectName(
        topic=first.topic,
        kafka_partition=first.kafka_partition,
        first_offset=first.first_offset,
        last_offset=last.last_offset,
        coalesced=True,
    )
