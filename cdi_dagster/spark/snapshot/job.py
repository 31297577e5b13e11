"""Spark job: makes the snapshot of a keyed collection for one Friday, and publishes it whole or not at all.

`main(argv)` is the program, the same locally and on EMR. The newest snapshot before it that is not stale, with the
daily rows since, becomes one row for each id; id_parts are made some at a time, so that no shuffle holds all of it.
"""

import argparse
import json
import logging
import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Final
from zlib import crc32

from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession

from cdi_dagster.core.collections import CollectionDay, find_collection, require_keyed
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.snapshot import ONE_WEEK, SnapshotInput, groups_of_id_parts, stale_snapshots
from cdi_dagster.core.snapshot_report import SnapshotReport
from cdi_dagster.core.storage_keys import (
    id_part_folder,
    id_part_of,
    run_failure_key,
    run_staging_prefix,
    snapshot_report_key,
)
from cdi_dagster.published.snapshot_mark import SnapshotMark, SnapshotPart
from cdi_dagster.published.snapshots import (
    MOST_WEEKS,
    PublishedNow,
    begin_snapshot,
    discard_staged,
    input_now,
    prepare_part,
    prepare_staged,
    publish_snapshot,
    published_key,
    read_published_now,
    snapshot_of,
    staged_parts,
)
from cdi_dagster.spark.ingest.task import task_storage
from cdi_dagster.spark.ingest.task_runner import planned_cores
from cdi_dagster.spark.job_failures import failure_of, write_failure
from cdi_dagster.spark.job_process import ended_by_signal, spark_context
from cdi_dagster.spark.reporting import Reporter, correlated_logging, open_reporter
from cdi_dagster.spark.snapshot.input_files import InputFiles, find_input_files
from cdi_dagster.spark.snapshot.rows import all_rows, base_rows, count_by, count_modified, latest_rows
from cdi_dagster.spark.snapshot.slices import slices_of, task_memory
from cdi_dagster.spark.tables.locations import spark_path
from cdi_dagster.storage import PreparedObject, Storage, StorageError, open_storage

STEP: Final = "build_snapshot"
_log = logging.getLogger(__name__)

GROUP_BYTES: Final = 512 * 1024**3
"""Compressed input of the id_parts that are made at a time: the nodes' disks hold some twice it of a shuffle."""

FILES_OF_ONE_MACHINE: Final = 1_000
_FILES_OF_A_TASK: Final = 8

SAMPLED_ROWS: Final = 2_000_000
SAMPLED_DAYS: Final = 40


def main(argv: Sequence[str]) -> int:
    """Run the job: 0 published, 1 failed (the failure is reported and written), 2 wrong usage."""
    with open_reporter(argv) as (reporter, rest):
        arguments = _parse(rest)
        with correlated_logging(arguments.correlation_id), ended_by_signal():
            try:
                job = BuildSnapshot(arguments, reporter)
                with spark_context(job.name, encrypts_shuffles=True):
                    report = job.run(SparkSession.builder.getOrCreate())
            except Exception as error:  # noqa: BLE001 - the end of every failure: it gets a class and is reported
                reporter.failure(failure_of(error))
                return 1
            reporter.report(STEP, report.to_json())
            return 0


class BuildSnapshot:
    """One run.

    Raises:
        CdiError: INPUT_INVALID where the arguments are of no snapshot.
    """

    def __init__(self, arguments: argparse.Namespace, reporter: Reporter) -> None:
        self._started = time.monotonic()
        self._reporter = reporter
        self._correlation_id: str = arguments.correlation_id
        self._export_day: date = arguments.export_day
        self._first_storage_day: date = arguments.first_storage_day
        self._group_bytes: int = arguments.group_bytes
        self._published: Storage = open_storage(arguments.published_root)
        self._collection = find_collection(arguments.collection)
        require_keyed(self._collection)
        self._day = snapshot_of(self._collection, self._export_day)
        self._failure_key = run_failure_key(self._day, self._correlation_id)

    @property
    def name(self) -> str:
        """Its name on Spark's pages."""
        return f"cdi {STEP} {self._collection.id} {self._export_day}"

    def run(self, spark: SparkSession) -> SnapshotReport:
        """Make, check, publish, report.

        Raises:
            CdiError: what went wrong, with its class; nothing was published then, and `failure.json` has it too.
        """
        try:
            report_key = snapshot_report_key(self._day, self._correlation_id)
            self._published.delete([report_key, self._failure_key])  # of an earlier try of this same run
            begin_snapshot(self._published, self._day)
            try:
                report = self._report(self._make(spark))
            finally:
                self._discard_if_possible()
            self._published.write(report_key, json.dumps(report.to_json(), indent=1).encode())
        except Exception as error:
            failure = failure_of(error)
            write_failure(self._published, self._failure_key, failure)
            raise failure from error
        return report

    def _make(self, spark: SparkSession) -> SnapshotMark:
        for name in ("spark.sql.files.ignoreMissingFiles", "spark.sql.files.ignoreCorruptFiles"):
            spark.conf.set(name, "false")  # whatever the cluster's defaults
        used, now = self._input_now()
        base = used.base.export_day if used.base else None
        self._reporter.progress(f"Snapshot {self._export_day}: {len(used.days)} days on the base {base}")
        files = find_input_files(self._published, self._collection, used, now)
        rows_in = self._count_input(spark, files, used, now)
        for number, id_parts in enumerate(groups_of_id_parts(files.stored_bytes, most_bytes=self._group_bytes)):
            self._write_group(spark, files, id_parts, number)
            self._reporter.progress(f"Wrote {len(id_parts)} id_parts, the last is {id_parts[-1]!r}")
        staged = staged_parts(self._published, self._day, correlation_id=self._correlation_id)
        by_part = self._count_staged(spark, staged)
        mark = self._with_sample(spark, self._mark(used, rows_in, by_part, staged), staged)
        if self._input_now()[0].fingerprint != used.fingerprint:
            raise CdiError(
                FailureClass.INPUT_CHANGED,
                f"The base or daily rows of {self._collection.id} were published again while the snapshot of "
                f"{self._export_day} was made from them.",
                next_step="Nothing was published: make it again.",
            )
        publish_snapshot(self._published, self._day, self._prepare(spark, staged), mark)
        return mark

    def _prepare(self, spark: SparkSession, staged: Sequence[SnapshotPart]) -> list[PreparedObject]:
        """Prepare the files here, or where they are very many on the workers: S3 takes seconds to copy each."""
        if len(staged) <= FILES_OF_ONE_MACHINE:
            return prepare_staged(self._published, self._day, staged, correlation_id=self._correlation_id)
        work = partial(_prepare_on_worker, self._published.root, self._day, self._correlation_id)
        slices = math.ceil(len(staged) / _FILES_OF_A_TASK)
        return spark.sparkContext.parallelize(staged, slices).map(work).collect()

    def _input_now(self) -> tuple[SnapshotInput, PublishedNow]:
        return input_now(self._published, self._collection, self._export_day, first_storage_day=self._first_storage_day)

    def _count_input(
        self, spark: SparkSession, files: InputFiles, used: SnapshotInput, now: PublishedNow
    ) -> dict[str, int]:
        """Count what is read, by `db_type`, and compare it with the marks."""
        read = files.read(spark, list(files.stored_bytes))
        if not read:
            return {}
        found = count_by(all_rows(read).selectExpr("day > 0 AS is_daily", "db_type"), "is_daily", "db_type")
        of_days = sum(count for (is_daily, _), count in found.items() if is_daily)
        of_base = sum(found.values()) - of_days
        marked_days = sum(now.rows[day].published for day in used.days)
        self._require_equal("the daily rows", of_days, marked_days)
        before = now.snapshots[used.base.export_day] if used.base else None
        if before is None or before.made_from is not None:  # an adopted base was never counted
            self._require_equal("the base", of_base, sum(before.rows.values()) if before else 0)
        totals: Counter[str] = Counter()
        for (_, db_type), count in found.items():
            totals[db_type] += count
        return dict(sorted(totals.items()))

    def _write_group(self, spark: SparkSession, files: InputFiles, id_parts: Sequence[str], number: int) -> None:
        size = sum(files.stored_bytes[id_part] for id_part in id_parts)
        context = spark.sparkContext
        slices = slices_of(size, cores=planned_cores(context), task_memory_bytes=_task_memory(context))
        latest = latest_rows(all_rows(files.read(spark, id_parts)), slices=slices)
        folder = f"{run_staging_prefix(self._day, self._correlation_id)}group={number:05d}"
        written = latest.write.partitionBy("id_part").option("compression", "zlib")
        # A killed attempt of this run may have left S3A's marker of the folder, which is no object to us.
        written.mode("overwrite").orc(spark_path(self._published.uri(folder)))

    def _count_staged(self, spark: SparkSession, staged: Sequence[SnapshotPart]) -> dict[tuple[str, ...], int]:
        """Count the rows of the files as they are stored, by id_part and `db_type`."""
        read = self._staged_rows(spark, (part.key for part in staged))
        return count_by(all_rows(read), "id_part", "db_type") if read else {}

    def _mark(
        self,
        used: SnapshotInput,
        rows_in: Mapping[str, int],
        by_part: Mapping[tuple[str, ...], int],
        staged: Sequence[SnapshotPart],
    ) -> SnapshotMark:
        id_parts: Counter[str] = Counter()
        rows: Counter[str] = Counter()
        for (id_part, db_type), count in by_part.items():
            id_parts[id_part] += count
            rows[db_type] += count
        more = [db_type for db_type, count in rows.items() if count > rows_in.get(db_type, 0)]
        lost = {id_part_folder(id_part) for id_part in id_parts} ^ {_folder_of(part.key) for part in staged}
        if more or lost or (rows_in and not rows):
            raise CdiError(
                FailureClass.COUNTS_DO_NOT_RECONCILE,
                f"The snapshot of {self._export_day} would hold {dict(rows)} rows, made from {dict(rows_in)}.",
            )
        parts = (SnapshotPart(key=published_key(self._day, each.key), size_bytes=each.size_bytes) for each in staged)
        return SnapshotMark(
            correlation_id=self._correlation_id,
            collection_id=self._collection.id,
            export_day=self._export_day,
            fingerprint=used.fingerprint,
            made_from=used,
            rows_in=rows_in,
            rows=dict(sorted(rows.items())),
            id_parts=dict(sorted(id_parts.items())),
            parts=tuple(sorted(parts, key=lambda part: part.key)),
            published_at=datetime.now(UTC).replace(microsecond=0),
        )

    def _with_sample(self, spark: SparkSession, mark: SnapshotMark, staged: Sequence[SnapshotPart]) -> SnapshotMark:
        """Add on which days the ids of some id_parts were last modified: what the check of freshness reads."""
        sampled, rows = set(), 0
        for id_part in sorted(mark.id_parts, key=lambda each: crc32(each.encode())):  # not neighbours
            if rows < SAMPLED_ROWS:
                sampled.add(id_part)
                rows += mark.id_parts[id_part]
        read = self._staged_rows(spark, (part.key for part in staged if id_part_of(part.key) in sampled))
        modified = count_modified(all_rows(read), days=SAMPLED_DAYS) if read else {}
        return replace(mark, sampled_rows=rows, modified=modified)

    def _staged_rows(self, spark: SparkSession, keys: Iterable[str]) -> list[DataFrame]:
        """Return the rows of staged files, by the group that they were written in."""
        by_group: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            by_group[key.partition("id_part=")[0]].append(key)
        return [base_rows(spark, self._published, prefix, found) for prefix, found in by_group.items()]

    def _require_equal(self, what: str, found: int, marked: int) -> None:
        if found != marked:
            raise CdiError(
                FailureClass.COUNTS_DO_NOT_RECONCILE,
                f"There are {found} rows of {what} for the snapshot of {self._export_day}, but {marked} are marked.",
            )

    def _report(self, mark: SnapshotMark) -> SnapshotReport:
        used = mark.made_from
        return SnapshotReport(
            correlation_id=mark.correlation_id,
            collection_id=mark.collection_id,
            export_day=mark.export_day.isoformat(),
            fingerprint=mark.fingerprint,
            base=used.base.export_day.isoformat() if used and used.base else None,
            days=tuple(day.isoformat() for day in used.days) if used else (),
            rows_in=mark.rows_in,
            rows=mark.rows,
            id_parts=len(mark.id_parts),
            files=len(mark.parts),
            stored_bytes=mark.stored_bytes,
            stale_later=tuple(map(str, self._stale_later())),
            seconds=round(time.monotonic() - self._started, 3),
        )

    def _stale_later(self) -> list[date]:
        """Return the export days of later snapshots that this one leaves stale: they have to be made again.

        The snapshot is published by now: a mark that cannot be read does not make the run fail.
        """
        try:
            later = read_published_now(
                self._published,
                self._collection,
                self._export_day + MOST_WEEKS * ONE_WEEK,
                first_storage_day=self._first_storage_day,
                weeks=MOST_WEEKS + 1,
            )
        except (CdiError, StorageError) as error:
            _log.warning("Which later snapshots are stale is not known: %s", error)
            return []
        return sorted(day for day in stale_snapshots(later.made, later.identities) if day > self._export_day)

    def _discard_if_possible(self) -> None:
        """At the end, its own: another run may have the lease by now.

        What made the run fail may make this fail too, and is the failure to report.
        """
        try:
            discard_staged(self._published, self._day, correlation_id=self._correlation_id)
        except StorageError as error:
            _log.warning("Some files in staging could not be deleted; they are never read: %s", error)


def _prepare_on_worker(
    published_root: str, day: CollectionDay, correlation_id: str, part: SnapshotPart
) -> PreparedObject:
    return prepare_part(task_storage(published_root), day, part, correlation_id=correlation_id)


def _task_memory(spark: SparkContext) -> int:
    settings = spark.getConf()
    if (settings.get("spark.master") or "").startswith("local"):
        return task_memory(settings.get("spark.driver.memory") or "1g", cores=spark.defaultParallelism)
    cores = int(settings.get("spark.executor.cores") or 1)
    return task_memory(settings.get("spark.executor.memory") or "1g", cores=cores)


def _folder_of(key: str) -> str:
    return f"{key.rpartition('/')[0].rpartition('/')[2]}/"


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=STEP, description="Make the snapshot of a keyed collection for one Friday.")
    parser.add_argument("--published-root", required=True, help="file:///folder or s3://bucket")
    parser.add_argument("--collection", required=True, help="db:name")
    parser.add_argument("--export-day", required=True, type=_day, help="YYYY-MM-DD, a Friday")
    parser.add_argument("--first-storage-day", required=True, type=_day, help="of the collection, YYYY-MM-DD")
    parser.add_argument("--correlation-id", required=True)
    parser.add_argument("--group-bytes", default=GROUP_BYTES, type=int, help="input of the id_parts made at a time")
    return parser.parse_args(argv)


def _day(text: str) -> date:
    try:
        return parse_day(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
