"""Sharded runs on S3 that kill themselves (SIGKILL) before their n-th request: what `test_kill_on_s3` starts.

    python -m cdi_dagster_tests.coalescer.killed_shards <root with {step}>

writes the smallest day that needs every kind of request to a root of its own for each step, and forks a process in
which two shards coalesce it at the same time, until one makes the request of that step. Ends with the first that gets
through alive, and prints the step after it. This process itself never uses obstore, whose threads a fork has not.
"""

import itertools
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from botocore.client import BaseClient

from cdi_dagster.coalescer import coalesce
from cdi_dagster.coalescer.shard import Shard
from cdi_dagster.storage import Storage, open_storage, s3_upload
from cdi_dagster.storage.s3 import S3Storage
from cdi_dagster.storage.s3_small import SmallReads
from cdi_dagster_tests.coalescer.days import DAY, content, key, record
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.kill_points import killing_before, print_kill_points

PART_BYTES = 300
RAW = {0: [(0, 59), (60, 119)], 1: [(7, 7), (8, 8)]}
"""First and last offsets by Kafka partition: one is uploaded in parts, one in a single request."""
COALESCED = ["0_0_119.jsonl.gz", "1_7_8.jsonl.gz"]
SHARDS = tuple(Shard(index=index, count=2) for index in range(2))


def records() -> list[bytes]:
    return sorted(
        record(partition, offset)
        for partition, objects in RAW.items()
        for first, last in objects
        for offset in range(first, last + 1)
    )


def put_day(storage: Storage) -> None:
    for partition, objects in RAW.items():
        for first, last in objects:
            storage.write(key(f"{first}-{last}", partition), content(first, last, partition))


def kill_before(step: int) -> None:
    """Make this process kill itself before its request of that number, counted from 0; deletes go key by key."""
    counted = killing_before(step)
    delete = S3Storage.delete

    def delete_each(storage: S3Storage, keys: Iterable[str]) -> None:
        for each in keys:
            delete(storage, [each])

    BaseClient._make_api_call = counted(BaseClient._make_api_call)
    SmallReads.read = counted(SmallReads.read)  # type: ignore[method-assign]
    S3Storage.delete = delete_each  # type: ignore[method-assign, assignment]


def coalesce_by_two_shards(storage: Storage) -> None:
    with ThreadPoolExecutor(2) as threads:
        for summary in threads.map(lambda shard: coalesce(storage, AUDIT.on(DAY), shard=shard), SHARDS):
            assert summary.succeeded, summary.failures


def coalesce_and_die(root: str, step: int) -> None:
    storage = open_storage(root)
    put_day(storage)
    kill_before(step)
    coalesce_by_two_shards(storage)


def main(template: str) -> None:
    s3_upload._PART_BYTES = PART_BYTES
    print_kill_points(lambda step: coalesce_and_die(template.format(step=step), step), itertools.count())


if __name__ == "__main__":
    main(sys.argv[1])
