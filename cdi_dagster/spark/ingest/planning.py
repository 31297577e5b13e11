"""Plans the tasks of an ingestion: which worker task reads which pinned objects.

Pure: the same pinned input and the same number of cores give the same plan. A task per object would cost a launch
each, and a day may have thousands; too few tasks leave cores idle at the end.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cdi_dagster.core.pinned_input import PinnedObject

OBJECT_OVERHEAD_BYTES: Final = 32 * 1024
"""What opening an object costs, in compressed bytes of the same time: thousands of tiny objects spread evenly too."""

MOST_TASK_BYTES: Final = 256 * 1024 * 1024
"""Where the cluster shows few cores yet (executors still starting), tasks stay this small: it grows into them."""


@dataclass(frozen=True, kw_only=True)
class ReadTask:
    """What one Spark task reads.

    Attributes:
        index: number of the task; part names begin with it.
        objects: in pinned order, so the records of a part stay in offset order.
    """

    index: int
    objects: tuple[PinnedObject, ...]

    @property
    def input_bytes(self) -> int:
        """Compressed bytes to read."""
        return sum(pinned.size_bytes for pinned in self.objects)


def plan_tasks(objects: Sequence[PinnedObject], *, cores: int, tasks_per_core: int) -> list[ReadTask]:
    """Pack every object into exactly one of some `cores * tasks_per_core` tasks of about equal bytes, largest first.

    Fewer tasks where there are fewer objects (an object is never divided: gzip cannot be entered in the middle); more
    where a task would exceed `MOST_TASK_BYTES`.
    """
    if not objects:
        return []
    weights = [pinned.size_bytes + OBJECT_OVERHEAD_BYTES for pinned in objects]
    wanted = max(cores * tasks_per_core, math.ceil(sum(weights) / MOST_TASK_BYTES), 1)
    return [
        ReadTask(index=index, objects=tuple(objects[position] for position in positions))
        for index, positions in enumerate(packed(weights, wanted))
    ]


def packed(weights: Sequence[int], wanted: int) -> list[list[int]]:
    """Pack positions into at most `wanted` bins of about equal weight, the heaviest bin first, each in order."""
    bins: list[list[int]] = [[] for _ in range(min(wanted, len(weights)))]
    lightest = [(0, number) for number in range(len(bins))]
    for position in sorted(range(len(weights)), key=lambda position: (-weights[position], position)):
        weight, number = heapq.heappop(lightest)
        bins[number].append(position)
        heapq.heappush(lightest, (weight + weights[position], number))
    total = {number: weight for weight, number in lightest}
    order = sorted(range(len(bins)), key=lambda number: (-total[number], number))
    return [sorted(bins[number]) for number in order]
