"""The plain coalescer: list, group by Kafka partition, batch by size and count, read, concatenate, put, delete.

Partitions are worked on at once, each with a pool of readers of its own. It claims nothing, checks nothing that it
reads or wrote, and joins records where an object does not end with a newline.

`python -m benchmarks.plain_coalescer s3://bucket/prefix/`; the endpoint is AWS_ENDPOINT_URL.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config

from cdi_dagster.core.object_names import ObjectName, parse_object_name

_PARTITIONS_AT_ONCE = 4
_READERS = 4
_MAX_BYTES = 128 * 1024 * 1024
_MAX_OBJECTS = 10_000
_Row = tuple[ObjectName, str, int]


def coalesce(client: Any, bucket: str, prefix: str) -> None:
    """Merge everything under a prefix."""
    partitions: dict[int, list[_Row]] = defaultdict(list)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for row in page.get("Contents", ()):
            name = parse_object_name(row["Key"])
            partitions[name.kafka_partition].append((name, row["Key"], row["Size"]))
    with ThreadPoolExecutor(_PARTITIONS_AT_ONCE) as pool:
        list(pool.map(lambda rows: _merge_partition(client, bucket, prefix, rows), partitions.values()))


def _merge_partition(client: Any, bucket: str, prefix: str, rows: list[_Row]) -> None:
    with ThreadPoolExecutor(_READERS) as readers:
        for batch in _batches(sorted(rows, key=lambda row: row[0].first_offset)):
            keys = [key for _, key, _ in batch]
            content = b"".join(readers.map(lambda key: _read(client, bucket, key), keys))
            first, last = batch[0][0], batch[-1][0]
            name = f"{first.topic}_{first.kafka_partition}_{first.first_offset}_{last.last_offset}.jsonl.gz"
            client.put_object(Bucket=bucket, Key=f"{prefix}{name}", Body=content)
            for start in range(0, len(keys), 1000):
                objects = [{"Key": key} for key in keys[start : start + 1000]]
                client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})


def _read(client: Any, bucket: str, key: str) -> bytes:
    content: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def _batches(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    size_bytes = 0
    for row in rows:
        if batch and (size_bytes + row[2] > _MAX_BYTES or len(batch) >= _MAX_OBJECTS):
            yield batch
            batch, size_bytes = [], 0
        batch.append(row)
        size_bytes += row[2]
    if batch:
        yield batch


def main(argv: Sequence[str]) -> None:
    """Run it on `s3://bucket/prefix/`."""
    (uri,) = argv
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    coalesce(boto3.client("s3", config=Config(max_pool_connections=20)), bucket, prefix)


if __name__ == "__main__":
    main(sys.argv[1:])
