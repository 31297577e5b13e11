"""Plans the tasks of an ingestion: which worker task reads which pinned objects, or which parts of them.

Pure: the same pinned input, indexes and number of cores give the same plan. A task per object would cost a launch
each, and a day may have thousands; too few tasks leave cores idle at the end, and so does an object that is more than
a task's share: it is divided where the index of its gzip members is known.
"""

import heapq
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from cdi_dagster.core.member_index import GROUP_BYTES, NOTHING, Extent
from cdi_dagster.core.pinned_input import PinnedObject

Groups: TypeAlias = Mapping[str, Sequence[Extent]]
"""Of the objects that can be divided, by key: their gzip members in groups."""

OBJECT_OVERHEAD_BYTES: Final = 32 * 1024
"""What opening an object costs, in compressed bytes of the same time: thousands of tiny objects spread evenly too."""

MOST_TASK_BYTES: Final = 256 * 1024 * 1024
"""Where the cluster shows few cores yet (executors still starting), tasks stay this small: it grows into them."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A pinned object, or a part of one: whole gzip members of it.

    Attributes:
        pinned: the object.
        before: of a part, how much of the object comes before.
        extent: of a part, how much it must hold; None for the whole object.
    """

    pinned: PinnedObject
    before: Extent = NOTHING
    extent: Extent | None = None

    @property
    def size_bytes(self) -> int:
        """Compressed bytes to read."""
        return self.extent.bytes if self.extent else self.pinned.size_bytes

    @property
    def is_last(self) -> bool:
        """Whether the object ends with it."""
        return self.before.bytes + self.size_bytes == self.pinned.size_bytes


@dataclass(frozen=True, kw_only=True)
class ReadTask:
    """What one Spark task reads.

    Attributes:
        index: number of the task; part names begin with it.
        pieces: in pinned order, so the records of a part stay in offset order.
    """

    index: int
    pieces: tuple[Piece, ...]

    @property
    def input_bytes(self) -> int:
        """Compressed bytes to read."""
        return sum(piece.size_bytes for piece in self.pieces)


def large_objects(objects: Sequence[PinnedObject], *, cores: int, tasks_per_core: int) -> list[PinnedObject]:
    """Return the objects that are worth dividing: more than a task's share, of those that may have an index."""
    share = _share(objects, cores * tasks_per_core)
    return [pinned for pinned in objects if pinned.size_bytes > max(share, GROUP_BYTES) and pinned.name.coalesced]


def plan_tasks(
    objects: Sequence[PinnedObject], *, cores: int, tasks_per_core: int, groups: Groups | None = None
) -> list[ReadTask]:
    """Pack every object into exactly one of some `cores * tasks_per_core` tasks of about equal bytes, largest first.

    Fewer tasks where there are fewer objects; more where a task would exceed `MOST_TASK_BYTES`. The objects of `groups`
    are divided, each part into a task of its own, in order: their records are in order over the tasks too.
    """
    if not objects:
        return []
    share = _share(objects, cores * tasks_per_core)
    pieces = [piece for pinned in objects for piece in _divided(pinned, (groups or {}).get(pinned.key, ()), share)]
    weights = [piece.size_bytes + OBJECT_OVERHEAD_BYTES for piece in pieces]
    parts = {position for position, piece in enumerate(pieces) if piece.extent}
    wanted = max(_wanted(objects, cores * tasks_per_core), len(parts))
    return [
        ReadTask(index=index, pieces=tuple(pieces[position] for position in positions))
        for index, positions in enumerate(_in_order(packed(weights, wanted, apart=parts), parts))
    ]


def _wanted(objects: Sequence[PinnedObject], tasks: int) -> int:
    return max(tasks, math.ceil(_weight(objects) / MOST_TASK_BYTES), 1)


def _share(objects: Sequence[PinnedObject], tasks: int) -> float:
    return _weight(objects) / _wanted(objects, tasks)


def _weight(objects: Sequence[PinnedObject]) -> int:
    return sum(pinned.size_bytes for pinned in objects) + OBJECT_OVERHEAD_BYTES * len(objects)


def _divided(pinned: PinnedObject, groups: Sequence[Extent], share: float) -> list[Piece]:
    """Return the object in parts of about equal bytes that are no more than a share, as far as its groups allow."""
    count = min(math.ceil(pinned.size_bytes / share), len(groups))
    if count < 2:
        return [Piece(pinned=pinned)]
    pieces: list[Piece] = []
    before = extent = NOTHING
    for group in groups:
        extent += group
        if (before.bytes + extent.bytes) * count >= pinned.size_bytes * (len(pieces) + 1):
            pieces.append(Piece(pinned=pinned, before=before, extent=extent))
            before, extent = before + extent, NOTHING
    return pieces


def _in_order(bins: list[list[int]], parts: Collection[int]) -> list[list[int]]:
    """Return the bins such that those with a part, of which each has one at most, are in the order of the parts."""
    part_in = [next((position for position in positions if position in parts), None) for positions in bins]
    with_part = iter(sorted((part, number) for number, part in enumerate(part_in) if part is not None))
    return [bins[number if part is None else next(with_part)[1]] for number, part in enumerate(part_in)]


def packed(weights: Sequence[int], wanted: int, *, apart: Collection[int] = ()) -> list[list[int]]:
    """Pack positions into at most `wanted` bins of about equal weight, the heaviest bin first, each in order.

    No two of the positions `apart` come into one bin; there are `wanted` of them at most.
    """
    bins: list[list[int]] = [[] for _ in range(min(wanted, len(weights)))]
    lightest = [(0, number) for number in range(len(bins))]
    for position in sorted(
        range(len(weights)), key=lambda position: (position not in apart, -weights[position], position)
    ):
        weight, number = heapq.heappop(lightest)
        bins[number].append(position)
        heapq.heappush(lightest, (weight + weights[position], number))
    total = {number: weight for weight, number in lightest}
    order = sorted(range(len(bins)), key=lambda number: (-total[number], number))
    return [sorted(bins[number]) for number in order]
