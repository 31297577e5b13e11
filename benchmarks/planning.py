"""`python -m benchmarks.planning`: CPU and memory of planning or pinning very many objects, without storage."""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime

from cdi_dagster.coalescer.plan import plan_batches
from cdi_dagster.core.bulk import collector_paused
from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.pinned_input import pin
from cdi_dagster.ingestion.pinning import manifest_of

_DAY = find_collection("data:businessAudit").on(date(2023, 3, 26))
_KAFKA_PARTITIONS = 16


def listing(objects: int) -> Iterator[StoredObject]:
    """Yield raw objects of ten records, in key order as S3 lists them."""
    of_partition = objects // _KAFKA_PARTITIONS
    modified_at = datetime(2023, 3, 26, 12, tzinfo=UTC)
    for kafka_partition in sorted(range(_KAFKA_PARTITIONS), key=str):
        for first in sorted(range(0, of_partition * 10, 10), key=lambda offset: f"{offset}-"):
            yield StoredObject(
                key=f"{_DAY.corporate_prefix}data.businessAudit_{kafka_partition}_{first}-{first + 9}.jsonl.gz",
                size_bytes=2000 + first % 100,
                etag=f"{kafka_partition:016x}{first:016x}",
                version_id=None,
                modified_at=modified_at,
            )


def _plan(objects: int) -> str:
    plan = plan_batches(_DAY.collection, _DAY.corporate_prefix, listing(objects))
    return f"{len(plan.batches)} batches of {plan.source_count:,}"


def _pin(objects: int) -> str:
    pinned = pin(_DAY, "s3://corporate", listing(objects))
    return f"manifest of {len(manifest_of(pinned)) / 1e6:.1f} MB"


def _list(objects: int) -> str:
    return f"{sum(1 for _ in listing(objects)):,} names"


_WORK: dict[str, Callable[[int], str]] = {"list": _list, "plan": _plan, "pin": _pin}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one of them in this process; `list` is what the listing itself costs here."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
    parser.add_argument("work", choices=sorted(_WORK))
    parser.add_argument("--objects", type=int, default=1_000_000)
    arguments = parser.parse_args(argv)
    before = _peak_megabytes()
    started = time.process_time()
    with collector_paused():  # as where it is used
        done = _WORK[arguments.work](arguments.objects)
    seconds = time.process_time() - started
    grown = _peak_megabytes() - before
    print(f"{arguments.work} of {arguments.objects:,}: {seconds:.2f} s of CPU, {grown:.0f} MB more memory; {done}")
    return 0


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
