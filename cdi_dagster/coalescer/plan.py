"""Decides what to merge, from a listing. Pure: no storage, no clock. `run` carries the plan out.

A batch merges raw objects of one Kafka partition whose offsets follow each other without a gap. So a gap stays visible
between two names, and no batch states an offset that another object states. An object that cannot be merged safely is
left alone, with the reason.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from cdi_dagster.coalescer.raw_objects import RawObjects, Source, Sources
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.object_names import InvalidObjectNameError, parse_object_name, parse_object_of_day

DEFAULT_MAX_BYTES = 128 * 1024 * 1024
"""The size that the coalescer in use makes: about one Spark task an object."""
DEFAULT_MAX_OBJECTS = 10_000
"""Bounds the memory and the journal of a batch (about 300 bytes an object)."""


_NUMBER = r"(0|[1-9][0-9]{0,17})"
_MOST_OFFSET = 2**63


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
    sources: Sources
    stored_as: StoredObject | None = None

    @property
    def size_bytes(self) -> int:
        """Compressed bytes of the sources."""
        return self.sources.size_bytes


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
        listed_objects: objects of the listing.
        listed_bytes: their compressed bytes.
        listed_offsets: the offsets that their names state, summed.
        conflicts: sentences about coalesced objects that overlap: the day cannot be complete.
    """

    batches: tuple[Batch, ...]
    left_alone: tuple[LeftAlone, ...]
    listed_objects: int
    listed_bytes: int
    listed_offsets: int
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
    day = _Day(collection, prefix)
    day.add(listing)
    batches: list[Batch] = []
    conflicts: list[str] = []
    left_alone = day.left_alone
    for kafka_partition in sorted(day.partitions, key=int):
        raw = day.partitions[kafka_partition]
        coalesced = sorted(day.coalesced[kafka_partition], key=_offset_order)
        left_alone += [LeftAlone(key=c.stored.key, why="it is a coalesced object") for c in coalesced]
        numbers, left = _without_overlaps(raw)
        left_alone += left
        begun, free, left = _already_stored(raw, numbers, coalesced)
        overlapping, sentences = _coalesced_overlaps(coalesced)
        conflicts += sentences
        for batch in begun:
            if batch.key in overlapping:  # it is not known which of the two stays: the raw objects may be needed
                left_alone += [_overlapping(key, batch.key) for key in batch.sources.keys()]  # noqa: SIM118 - a method
            else:
                batches.append(batch)
        left_alone += left
        for group in _groups(raw, free, max_bytes, max_objects):
            if len(group) == 1:
                left_alone.append(LeftAlone(key=raw.key(group[0]), why="nothing to merge it with"))
            else:
                name = raw.name_of(group[0], group[-1], coalesced=True)
                batches.append(Batch(key=f"{prefix}{name}", sources=Sources(raw, group)))
    return Plan(
        batches=tuple(batches),
        left_alone=tuple(left_alone),
        conflicts=tuple(conflicts),
        listed_objects=day.objects,
        listed_bytes=day.bytes,
        listed_offsets=day.offsets,
    )


class _Day:
    """A listing, sorted into Kafka partitions; whose number is text here, as in the names."""

    def __init__(self, collection: Collection, prefix: str) -> None:
        self._collection, self._prefix = collection, prefix
        begin = re.escape(f"{prefix}{collection.topic}")
        self._usual = re.compile(rf"{begin}_{_NUMBER}_{_NUMBER}-{_NUMBER}\.jsonl\.gz").fullmatch
        self.partitions: dict[str, RawObjects] = {}
        self.coalesced: dict[str, list[Source]] = defaultdict(list)
        self.left_alone: list[LeftAlone] = []
        self.objects = self.bytes = self.offsets = 0

    def add(self, listing: Iterable[StoredObject]) -> None:
        """Add the objects of a listing, once: nearly all are raw objects with the usual name."""
        usual, partitions = self._usual, self.partitions
        for stored in listing:
            match = usual(stored.key)
            if match and stored.version_id is None:
                kafka_partition, first_text, last_text = match.groups()
                first, last = int(first_text), int(last_text)
                if first <= last:
                    if kafka_partition not in partitions:
                        self._partition(kafka_partition)
                    partitions[kafka_partition].add(first, last, stored)
                    continue
            self._add_unusual(stored)
        for raw in partitions.values():
            self.objects += len(raw)
            self.bytes += sum(raw.sizes)
            self.offsets += sum(raw.lasts) - sum(raw.firsts) + len(raw)

    def _add_unusual(self, stored: StoredObject) -> None:
        named = _named(self._collection, self._prefix, stored)
        if isinstance(named, Source) and not named.name.coalesced:
            raw = self._partition(str(named.name.kafka_partition))
            raw.add(named.name.first_offset, named.name.last_offset, stored, is_usual=False)
            return
        self.objects += 1
        self.bytes += stored.size_bytes
        self.offsets += _offset_count(stored.key)
        if isinstance(named, LeftAlone):
            self.left_alone.append(named)
        else:
            self._partition(str(named.name.kafka_partition))
            self.coalesced[str(named.name.kafka_partition)].append(named)

    def _partition(self, kafka_partition: str) -> RawObjects:
        if kafka_partition not in self.partitions:
            raw = RawObjects(self._prefix, self._collection.topic, int(kafka_partition))
            self.partitions[kafka_partition] = raw
        return self.partitions[kafka_partition]


def _offset_count(key: str) -> int:
    try:
        return parse_object_name(key).offset_count
    except InvalidObjectNameError:
        return 0


def _named(collection: Collection, prefix: str, stored: StoredObject) -> Source | LeftAlone:
    try:
        name = parse_object_of_day(prefix, stored.key)
    except InvalidObjectNameError as error:
        return LeftAlone(key=stored.key, why=str(error), expected=False)
    if name.topic != collection.topic:
        why = f"it is of topic {name.topic}, but {collection.id} is written to {collection.topic}"
        return LeftAlone(key=stored.key, why=why, expected=False)
    if name.last_offset >= _MOST_OFFSET:
        return LeftAlone(key=stored.key, why="Kafka has no offset that large", expected=False)
    if not name.coalesced and name.copy > 1:
        return LeftAlone(key=stored.key, why="K2HB writes no numbered copies of raw objects", expected=False)
    return Source(stored=stored, name=name)


def _offset_order(source: Source) -> tuple[int, int, int, int, str]:
    name = source.name
    return (name.kafka_partition, name.first_offset, name.last_offset, name.copy, source.stored.key)


def _without_overlaps(raw: RawObjects) -> tuple[list[int], list[LeftAlone]]:
    """Return the numbers of the raw objects in offset order, without those that share offsets with another one."""
    order = raw.in_offset_order(exactly=False)
    if not _overlaps(raw, order):
        return order, []
    order = raw.in_offset_order(exactly=True)
    overlapping = _overlaps(raw, order)
    left = [_overlapping(raw.key(number), raw.key(other)) for number, other in overlapping.items()]
    return [number for number in order if number not in overlapping], left


def _overlaps(raw: RawObjects, order: Iterable[int]) -> dict[int, int]:
    firsts, lasts = raw.firsts, raw.lasts
    overlapping: dict[int, int] = {}
    widest = reach = -1  # of those before: whatever overlaps any of them overlaps this one
    for number in order:
        if firsts[number] <= reach:
            overlapping[number] = widest
            overlapping.setdefault(widest, number)
        if lasts[number] > reach:
            widest, reach = number, lasts[number]
    return overlapping


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

    def sharing_offsets_with(self, first: int, last: int) -> list[Source]:
        found = []
        for index in range(bisect_right(self._firsts, last) - 1, -1, -1):
            if self._reach[index] < first:
                break
            if self._members[index].name.last_offset >= first:
                found.append(self._members[index])
        return found[::-1]


def _already_stored(
    raw: RawObjects, numbers: list[int], coalesced: Sequence[Source]
) -> tuple[list[Batch], list[int], list[LeftAlone]]:
    """Split off the raw objects whose offsets a coalesced object states; the rest is free to be merged."""
    if not coalesced:
        return [], numbers, []
    stored = _Coalesced(coalesced)
    free: list[int] = []
    left_alone: list[LeftAlone] = []
    covered_by: dict[str, tuple[Source, list[int]]] = {}
    for number in numbers:
        first, last = raw.firsts[number], raw.lasts[number]
        sharing = stored.sharing_offsets_with(first, last)
        covering = next((m for m in sharing if m.name.first_offset <= first and last <= m.name.last_offset), None)
        if covering:
            covered_by.setdefault(covering.stored.key, (covering, []))[1].append(number)
        elif sharing:
            left_alone.append(_overlapping(raw.key(number), sharing[0].stored.key))
        else:
            free.append(number)
    batches = [
        Batch(key=merged.stored.key, sources=Sources(raw, covered), stored_as=merged.stored)
        for merged, covered in covered_by.values()
    ]
    return batches, free, left_alone


def _groups(raw: RawObjects, numbers: Iterable[int], max_bytes: int, max_objects: int) -> Iterator[list[int]]:
    """Yield the numbers of raw objects that follow each other without a gap, within the limits."""
    firsts, lasts, sizes = raw.firsts, raw.lasts, raw.sizes
    group: list[int] = []
    size_bytes = following = 0
    for number in numbers:
        size = sizes[number]
        if group and (firsts[number] != following or size_bytes + size > max_bytes or len(group) >= max_objects):
            yield group
            group, size_bytes = [], 0
        group.append(number)
        size_bytes += size
        following = lasts[number] + 1
    if group:
        yield group
