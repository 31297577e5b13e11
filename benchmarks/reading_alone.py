"""Reads every raw object of a day as the tasks of `ingest_daily` do, in a process for each core, and nothing else.

`python benchmarks/reading_alone.py CORPORATE_ROOT`, with a checkout on PYTHONPATH: `small_objects` compares two.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.pinned_input import PinnedObject
from cdi_dagster.spark.ingest import planning
from cdi_dagster.spark.ingest.task import opened  # type: ignore[attr-defined]
from cdi_dagster.storage import open_storage

READ_IN = "seconds of reading: "
_READ_BYTES = 256 * 1024


def main(argv: Sequence[str]) -> None:
    """Read, and print how long the slowest process took."""
    root, collection, storage_day = argv
    prefix = find_collection(collection).on(parse_day(storage_day)).corporate_prefix
    objects = [
        PinnedObject(key=each.key, size_bytes=each.size_bytes, etag=each.etag, version_id=None)
        for each in open_storage(root).list(prefix)
    ]
    processes = os.cpu_count() or 1
    shares = [(root, objects[number::processes]) for number in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        print(f"{READ_IN}{max(pool.starmap(_read, shares, chunksize=1))}", flush=True)


def _read(root: str, objects: Sequence[PinnedObject]) -> float:
    storage = open_storage(root)
    # A checkout of before reads objects, not pieces of them.
    pieces = [planning.Piece(pinned=each) for each in objects] if hasattr(planning, "Piece") else objects
    started = time.monotonic()
    with closing(opened(storage, pieces)) as streams:
        for _, stream in streams:
            while stream.read(_READ_BYTES):
                pass
    return time.monotonic() - started


if __name__ == "__main__":
    main(sys.argv[1:])
