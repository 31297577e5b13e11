"""`python -m benchmarks.coalescer_simulation`: how long a day takes in shards, from the costs of one process.

Events: each process has one core and its readers, and works on four batches at once, as `coalescer.run` does; what the
storage allows in a second is shared by all. No Python of the coalescer runs.
"""

import argparse
import heapq
import random
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from cdi_dagster.coalescer.plan import DEFAULT_MAX_BYTES, DEFAULT_MAX_OBJECTS
from cdi_dagster.storage.read_ahead import requests_at_once

_BATCHES_AT_ONCE = 4
_KEYS_A_REQUEST = 1000
_PART_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What was measured of one process (docs/performance.md), and what the storage allows.

    Attributes:
        start_seconds: until a process lists.
        list_seconds_a_page: CPU for 1,000 names of the day, of all shards, and for planning those of its own.
        cpu_seconds_an_object: CPU for reading, checking, merging and deleting one.
        latency_seconds: until the storage responds.
        gets_a_second: of all processes; S3 documents 5,500 for one prefix.
        deletes_a_second: of all processes, in keys; S3 documents 3,500 for one prefix.
    """

    start_seconds: float = 1.0
    list_seconds_a_page: float = 0.030
    cpu_seconds_an_object: float = 0.0011
    latency_seconds: float = 0.020
    gets_a_second: float = float("inf")
    deletes_a_second: float = float("inf")


S3_OF_ONE_PREFIX = replace(Costs(), gets_a_second=5500, deletes_a_second=3500)


@dataclass
class _Resource:
    """Something that does one thing after the other; `latency` is added, but keeps nobody waiting."""

    rate: float
    free_at: float = 0.0

    def use(self, now: float, amount: float, latency: float = 0.0) -> float:
        """Return when it is done."""
        self.free_at = max(self.free_at, now) + amount / self.rate
        return self.free_at + latency


@dataclass
class _Process:
    readers: _Resource
    core: _Resource = field(default_factory=lambda: _Resource(rate=1.0))


_Task = Generator[float, float, None]


def seconds_of_a_day(partitions: Sequence[int], processes: int, costs: Costs, *, object_bytes: int = 2000) -> float:
    """Return how long it takes until the last shard is complete.

    Args:
        partitions: raw objects of each Kafka partition.
        processes: shards, each on a core of its own.
        costs: of one process.
        object_bytes: size of an object.
    """
    gets, deletes = _Resource(costs.gets_a_second), _Resource(costs.deletes_a_second)
    limit = max(1, min(DEFAULT_MAX_OBJECTS, DEFAULT_MAX_BYTES // object_bytes))
    at_once = requests_at_once(processes)
    pages = -(-sum(partitions) // _KEYS_A_REQUEST)
    planned_at = costs.start_seconds + pages * (costs.latency_seconds + costs.list_seconds_a_page)
    tasks: list[tuple[float, int, _Task]] = []
    for index in range(processes):
        process = _Process(readers=_Resource(rate=at_once / costs.latency_seconds))
        sizes = [
            min(limit, objects - done) for objects in partitions[index::processes] for done in range(0, objects, limit)
        ]
        for slot in range(_BATCHES_AT_ONCE):
            task = _batches(sizes[slot::_BATCHES_AT_ONCE], process, gets, deletes, costs, object_bytes, at_once)
            next(task)
            tasks.append((planned_at, len(tasks), task))
    return _run(tasks)


def _run(tasks: list[tuple[float, int, _Task]]) -> float:
    heapq.heapify(tasks)
    now = 0.0
    while tasks:
        now, number, task = heapq.heappop(tasks)
        try:
            heapq.heappush(tasks, (task.send(now), number, task))
        except StopIteration:
            continue
    return now


def _batches(
    sizes: Sequence[int],
    process: _Process,
    gets: _Resource,
    deletes: _Resource,
    costs: Costs,
    object_bytes: int,
    at_once: int,
) -> _Task:
    """Merge one batch after the other: yields when it goes on, and is sent that time."""
    now = yield 0.0
    for size in sizes:
        for done in range(0, size, at_once):
            objects = min(at_once, size - done)
            now = yield process.readers.use(gets.use(now, objects), objects, costs.latency_seconds)
            now = yield process.core.use(now, objects * costs.cpu_seconds_an_object)
        requests = 4 + 2 * (size * object_bytes // _PART_BYTES)  # head, begin, complete, read back; parts
        now = yield now + requests * costs.latency_seconds
        for done in range(0, size, _KEYS_A_REQUEST):
            now = yield deletes.use(now, min(_KEYS_A_REQUEST, size - done), costs.latency_seconds)


def uneven_partitions(objects: int, partitions: int, *, seed: int = 17) -> list[int]:
    """Return how many objects each Kafka partition has, up to a third more or less than the mean."""
    weights = [random.Random(seed + number).uniform(2, 4) for number in range(partitions)]  # noqa: S311 - not secret
    return [int(objects * weight / sum(weights)) for weight in weights]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the times of a day by processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coalescer_simulation", description=__doc__)
    parser.add_argument("--objects", type=int, default=1_000_000, help="raw objects of the day (1000000)")
    parser.add_argument("--partitions", type=int, default=64, help="Kafka partitions (64)")
    arguments = parser.parse_args(argv)
    partitions = uneven_partitions(arguments.objects, arguments.partitions)
    print("| processes | no limit of the storage | S3's documented limits for one prefix |\n|--:|--:|--:|")
    for processes in (1, 4, 16):
        free, limited = (seconds_of_a_day(partitions, processes, costs) for costs in (Costs(), S3_OF_ONE_PREFIX))
        print(f"| {processes} | {free:,.0f} s | {limited:,.0f} s |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
