"""Publishes a snapshot and kills itself (SIGKILL) before its n-th step on the storage, as `killed_day` does.

What Spark writes is a few bytes in its place: `publish_snapshot` does not look into files.
"""

import sys
from datetime import UTC, date, datetime

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.snapshot import SnapshotInput
from cdi_dagster.core.storage_keys import run_staging_prefix
from cdi_dagster.published.snapshot_mark import SnapshotMark, SnapshotPart
from cdi_dagster.published.snapshots import (
    begin_snapshot,
    discard_staged,
    prepare_staged,
    publish_snapshot,
    published_key,
    snapshot_of,
    staged_parts,
)
from cdi_dagster.storage import Storage
from cdi_dagster_tests.published.killed_day import main

SNAPSHOT = snapshot_of(find_collection("calculator:calculationParts"), date(2023, 6, 9))


def publish_run(storage: Storage, number: int) -> None:
    """Do what the job of run `number` does on the storage, from its start; one file: several have no certain order."""
    run = f"run-{number}"
    begin_snapshot(storage, SNAPSHOT)
    folder = f"{run_staging_prefix(SNAPSHOT, run)}group=00000/"
    storage.write(f"{folder}id_part=0{number}/part-00000-{run}.zlib.orc", b"x" * number)
    used = SnapshotInput(base=None, days={date(2023, 6, 8): run})
    staged = staged_parts(storage, SNAPSHOT, correlation_id=run)
    mark = SnapshotMark(
        correlation_id=run,
        collection_id=SNAPSHOT.collection.id,
        export_day=SNAPSHOT.export_day,
        fingerprint=used.fingerprint,
        made_from=used,
        rows_in={"INSERT": number},
        rows={"INSERT": number},
        id_parts={f"0{number}": number},
        parts=tuple(SnapshotPart(key=published_key(SNAPSHOT, part.key), size_bytes=part.size_bytes) for part in staged),
        published_at=datetime(2023, 6, 9, tzinfo=UTC),
    )
    publish_snapshot(storage, SNAPSHOT, prepare_staged(storage, SNAPSHOT, staged, correlation_id=run), mark)
    discard_staged(storage, SNAPSHOT, correlation_id=run)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), publish_run)
