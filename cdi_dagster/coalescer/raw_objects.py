"""The raw objects of one Kafka partition, in columns: a million take 150 MB, as values of their own a gigabyte.

For `plan` only, which works on their numbers; a `Source` is made of a number where one is read or deleted.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import overload

from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.object_names import ObjectName, parse_object_name


@dataclass(frozen=True, kw_only=True)
class Source:
    """One object that is merged, or holds merged ones."""

    stored: StoredObject
    name: ObjectName


class RawObjects:
    """Raw objects of one topic and Kafka partition; their numbers are in the order in which they were added.

    Args:
        prefix: of the storage day.
        topic: of the collection.
        kafka_partition: whose objects.

    Attributes:
        firsts: first offset of each.
        lasts: last offset of each.
        sizes: compressed bytes of each.
    """

    def __init__(self, prefix: str, topic: str, kafka_partition: int) -> None:
        self._prefix, self._topic, self._kafka_partition = prefix, topic, kafka_partition
        self.firsts, self.lasts, self.sizes = array("q"), array("q"), array("q")
        self._modified = array("d")
        self._etags: list[str] = []
        self._unusual: dict[int, StoredObject] = {}

    def __len__(self) -> int:
        return len(self.firsts)

    def add(self, first: int, last: int, stored: StoredObject, *, is_usual: bool = True) -> None:
        """Add one; it is usual where its key follows from its offsets and it has no version."""
        if not is_usual:
            self._unusual[len(self)] = stored
        self.firsts.append(first)
        self.lasts.append(last)
        self.sizes.append(stored.size_bytes)
        self._modified.append(stored.modified_at.timestamp())
        self._etags.append(stored.etag)

    def key(self, number: int) -> str:
        """Return the key of one."""
        unusual = self._unusual.get(number)
        if unusual:
            return unusual.key
        return (
            f"{self._prefix}{self._topic}_{self._kafka_partition}_{self.firsts[number]}-{self.lasts[number]}.jsonl.gz"
        )

    def source(self, number: int) -> Source:
        """Return one as a value."""
        unusual = self._unusual.get(number)
        if unusual:
            return Source(stored=unusual, name=parse_object_name(unusual.key))
        stored = StoredObject(
            key=self.key(number),
            size_bytes=self.sizes[number],
            etag=self._etags[number],
            version_id=None,
            modified_at=datetime.fromtimestamp(self._modified[number], UTC),
        )
        return Source(stored=stored, name=self.name_of(number, number, coalesced=False))

    def name_of(self, first: int, last: int, *, coalesced: bool) -> ObjectName:
        """Return the name of an object from the first offset of one to the last offset of another."""
        return ObjectName(
            topic=self._topic,
            kafka_partition=self._kafka_partition,
            first_offset=self.firsts[first],
            last_offset=self.lasts[last],
            coalesced=coalesced,
        )

    def in_offset_order(self, *, exactly: bool) -> list[int]:
        """Return their numbers by first offset; exactly: also those with the same one in a certain order."""
        order = sorted(range(len(self)), key=self.firsts.__getitem__)
        if exactly:
            order.sort(key=lambda number: (self.firsts[number], self.lasts[number], self.key(number)))
        return order


class Sources(Sequence[Source]):
    """Some of the raw objects, in this order; each is made when it is looked at."""

    def __init__(self, objects: RawObjects, numbers: Iterable[int]) -> None:
        self._objects, self._numbers = objects, array("q", numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Source]:
        return map(self._objects.source, self._numbers)

    @overload
    def __getitem__(self, index: int) -> Source: ...

    @overload
    def __getitem__(self, index: slice) -> "Sources": ...

    def __getitem__(self, index: int | slice) -> "Source | Sources":
        if isinstance(index, slice):
            return Sources(self._objects, self._numbers[index])
        return self._objects.source(self._numbers[index])

    def keys(self) -> list[str]:
        """Return the keys of all."""
        return list(map(self._objects.key, self._numbers))

    @property
    def size_bytes(self) -> int:
        """Compressed bytes of all."""
        return sum(map(self._objects.sizes.__getitem__, self._numbers))
