"""Publishes a day and kills itself (SIGKILL) before its n-th step on the storage: what `test_kill` starts.

    python -m cdi_dagster_tests.published.killed_day <root with {step}> <first step> <end> <collection>

As `storage.killed_publisher`, but the whole day: rejects, report, records (or rows, in other folders in each run) with
their mark. Prints the step after the last one.
"""

import gzip
import json
import sys
from collections.abc import Callable
from datetime import date
from functools import partial

from cdi_dagster.core.collections import CollectionDay, find_collection
from cdi_dagster.core.ingest_report import IngestReport, KeyServiceCounts, ObjectCounts
from cdi_dagster.core.pinned_input import PinnedInput, PinnedObject
from cdi_dagster.core.storage_keys import daily_prefix, id_part_folder, pinned_input_history_key, rejects_prefix
from cdi_dagster.published.publish import IngestOutcome, WrittenPart, begin_ingestion, publish_day
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.kill_points import print_kill_points
from cdi_dagster_tests.storage.killed_publisher import kill_before

DAY = find_collection("data:businessAudit").on(date(2023, 3, 26))
ROWS_DAY = find_collection("calculator:calculationParts").on(date(2023, 3, 26))


def pinned(number: int, day: CollectionDay) -> PinnedInput:
    """The input of run `number`: one object of 10 + number records, of which one is rejected."""
    key = f"{day.corporate_prefix}{day.collection.topic}_0_0_{9 + number}.jsonl.gz"
    entry = PinnedObject(key=key, size_bytes=100, etag="e", version_id=None)
    return PinnedInput(
        collection_id=day.collection.id,
        storage_day=day.storage_day,
        corporate_root="file:///corporate",
        fingerprint=f"{number}" * 64,
        objects=(entry,),
        left_out=(),
        gaps=(),
    )


def publish_run(storage: Storage, number: int, day: CollectionDay = DAY) -> None:
    """Do what the job of run `number` does on the storage, from its start."""
    run, count = f"run-{number}", 9 + number
    manifest = pinned(number, day)
    storage.write(pinned_input_history_key(day, manifest.fingerprint), json.dumps(manifest.to_json()).encode())
    begin_ingestion(storage, day, run)
    # Of rows, one folder that the run before had, and one that it had not.
    folders = [id_part_folder(f"0{number + more}") for more in (0, 1)] if day.collection.is_keyed else [""]
    parts = tuple(
        _part(storage, f"{daily_prefix(day)}{folder}", run, 1 if n else count - len(folders) + 1)
        for n, folder in enumerate(folders)
    )
    rejects = _part(storage, rejects_prefix(day, run), run, 1)
    counts = ObjectCounts(
        key=manifest.objects[0].key,
        read=count + 1,
        published=count,
        rejected={"date": 1},
        blank_lines=0,
        compressed_bytes=100,
    )
    report = IngestReport(
        fingerprint=manifest.fingerprint,
        objects=(counts,),
        record_bytes=sum(part.text_bytes for part in parts),
        published_bytes=sum(part.prepared.size_bytes for part in parts),
        parts=len(parts),
        fallback_records=0,
        key_service=KeyServiceCounts(),
        reject_samples=(),
        seconds=0.0,
        published_prefix=None,
        rejects_prefix=None,
        db_types={"INSERT": count, "DELETE": 0} if day.collection.is_keyed else None,
    )
    outcome = IngestOutcome(report=report, parts=parts, rejects=(rejects,))
    publish_day(storage, day, outcome, correlation_id=run, seconds=1.0)


def _part(storage: Storage, prefix: str, run: str, lines: int) -> WrittenPart:
    text = b'{"a":1}\n' * lines
    with storage.upload(f"{prefix}part-00000-{run}.jsonl.gz", group=run) as upload:
        upload.write(gzip.compress(text))
        return WrittenPart(prepared=upload.prepare(), lines=lines, text_bytes=len(text))


def main(template: str, first_step: int, end: int, publish: Callable[[Storage, int], None]) -> None:
    """Publish run 1, then run 2 up to its death, on a root of its own for each step."""

    def publish_and_die(step: int) -> None:
        storage = open_storage(template.format(step=step))
        publish(storage, 1)
        kill_before(step)
        publish(storage, 2)

    print_kill_points(publish_and_die, range(first_step, end))


if __name__ == "__main__":
    [chosen] = [day for day in (DAY, ROWS_DAY) if day.collection.id == sys.argv[4]]
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), partial(publish_run, day=chosen))
