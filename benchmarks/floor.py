"""The floor: the job's own reading, record engine and writing over the same objects, in one process without Spark.

What Spark adds to this (JVM, worker processes, tasks) is the most that can be saved outside the record engine.
`contenders` runs it; pyspark is imported for a type only and never started.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.plain_chain import READING, REJECTED
from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.core.storage_keys import daily_records_prefix, rejects_prefix
from cdi_dagster.spark.ingest.arguments import IngestArguments, parse_arguments, storage_and_key
from cdi_dagster.spark.ingest.planning import Piece, ReadTask
from cdi_dagster.spark.ingest.task import TaskSettings, run_task, run_tasks
from cdi_dagster.storage import open_storage


class _Failures:
    """Takes the failures of the tasks, in place of Spark's accumulator."""

    def add(self, failures: list[dict[str, Any]]) -> None:
        """Raise the failure: there are no other tasks."""
        raise CdiError.from_json(failures[0])


def main(argv: Sequence[str]) -> int:
    """Ingest the pinned day as one task, and publish it."""
    arguments = parse_arguments(argv)
    storage, key = storage_and_key(arguments.pinned_input)
    pinned = PinnedInput.from_json(json.loads(storage.read(key)))
    print(f"{READING} {len(pinned.objects)} objects", flush=True)
    settings = _settings(arguments, pinned)
    task = ReadTask(index=0, pieces=tuple(Piece(pinned=each) for each in pinned.objects))
    (result,) = run_tasks(partial(run_task, settings), _Failures(), iter([task]))  # type: ignore[arg-type]
    published = open_storage(arguments.published_root)
    for prefix, parts in ((settings.records_prefix, result.parts), (settings.rejects_prefix, result.rejects)):
        published.publish(prefix, [part.prepared for part in parts], b"{}", group=arguments.correlation_id)
    rejected = sum((Counter(counts.rejected) for counts in result.objects), Counter[str]())
    print(f"{REJECTED}{json.dumps(rejected)}", flush=True)
    return 0


def _settings(arguments: IngestArguments, pinned: PinnedInput) -> TaskSettings:
    collection = find_collection(pinned.collection_id)
    return TaskSettings(
        collection=collection,
        corporate_root=pinned.corporate_root,
        published_root=arguments.published_root,
        records_prefix=daily_records_prefix(collection.on(pinned.storage_day)),
        rejects_prefix=rejects_prefix(collection.on(pinned.storage_day), arguments.correlation_id),
        publication_id="floor",
        correlation_id=arguments.correlation_id,
        task_count=1,
        dense_offsets=True,
        key_service=arguments.key_service,
        progress=None,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
