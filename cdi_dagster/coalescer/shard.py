"""A shard: the share of a storage day that one process coalesces, by Kafka partition. Pure.

Shards of one count share no object, and each knows its own from the names alone. So they need not speak to each other.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cdi_dagster.core.listing import StoredObject

_NUMBERED = re.compile(r"_(\d+)_\d+[-_]\d+\.jsonl\.gz(?:\.\d+)?$")
_TEXT = re.compile(r"(?P<index>\d*)/(?P<count>\d+)")
MOST_SHARDS = 128
"""They renew their claims in one marker: each waits for the others' writes."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One of `count` shares of a day.

    Attributes:
        index: from 0, as AWS Batch numbers the jobs of an array.
        count: how many there are; 1 is the whole day.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_SHARDS or not 0 <= self.index < self.count:
            raise ValueError(f"{self} is no shard: of n shards (1 to {MOST_SHARDS}) the indexes are 0 to n-1")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole day."""
        return self.count == 1

    @property
    def upload_group(self) -> str:
        """The owner of its uploads: a killed shard's are discarded, those of a live one never."""
        return "coalescer" if self.is_whole else f"coalescer-{self.index}-of-{self.count}"

    def holds(self, key: str) -> bool:
        """Whether an object is of this shard; the first one has those whose names state no Kafka partition."""
        return self.is_whole or shard_index(key, self.count) == self.index

    def split(self, processes: int) -> "tuple[Shard, ...]":
        """Return as many shards that together are this one."""
        # The remainder by the product determines that by the count.
        return tuple(
            Shard(index=self.index + number * self.count, count=self.count * processes) for number in range(processes)
        )

    @classmethod
    def from_text(cls, text: str, *, default_index: str | None) -> "Shard":
        """Read `i/n`, or `/n` where the index is known otherwise.

        Raises:
            ValueError: it is of another form.
        """
        match = _TEXT.fullmatch(text)
        index = (match["index"] or default_index) if match else None
        if match is None or not (index or "").isdecimal():
            raise ValueError(f"{text!r} is no shard: write it as i/n, i from 0 to n-1 (/n in an AWS Batch array job)")
        return cls(index=int(index or 0), count=int(match["count"]))


WHOLE_DAY = Shard()


def shard_index(key: str, count: int) -> int:
    """Return the index of the shard of an object, of so many."""
    match = _NUMBERED.search(key)
    return int(match[1]) % count if match else 0


def by_shard(listing: Iterable[StoredObject], count: int) -> list[list[StoredObject]]:
    """Return a listing's objects by shard."""
    shards: list[list[StoredObject]] = [[] for _ in range(count)]
    for stored in listing:
        shards[shard_index(stored.key, count)].append(stored)
    return shards
