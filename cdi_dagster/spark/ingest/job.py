"""Spark job: one pinned storage day of a collection becomes its published daily records, or rows.

`main(argv)` is the program, the same locally and on EMR; read `IngestDaily.run` for its steps. What a worker does is
`task`; nothing but this module publishes.
"""

import json
import logging
import sys
import time
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Final

from pyspark import SparkContext

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.ingest_report import IngestReport, reconcile
from cdi_dagster.core.pinned_input import RESTORE_MANIFEST, PinnedInput
from cdi_dagster.core.storage_keys import daily_prefix, rejects_prefix, run_failure_key
from cdi_dagster.published.publish import (
    IngestOutcome,
    begin_ingestion,
    discard_uploads,
    publish_day,
    withhold_day,
)
from cdi_dagster.spark.ingest.arguments import IngestArguments, parse_arguments, storage_and_key
from cdi_dagster.spark.ingest.member_groups import read_groups
from cdi_dagster.spark.ingest.outcome import combine, require_all_written, require_few_rejects
from cdi_dagster.spark.ingest.planning import ReadTask, large_objects, plan_tasks
from cdi_dagster.spark.ingest.reading import MISFIT
from cdi_dagster.spark.ingest.rows import plan_partitions
from cdi_dagster.spark.ingest.task import TaskSettings, read_rows, run_task, write_rows
from cdi_dagster.spark.ingest.task_runner import Gathering, planned_cores, progress_board, run_on_spark
from cdi_dagster.spark.job_failures import failure_of, write_failure
from cdi_dagster.spark.job_process import ended_by_signal, spark_context
from cdi_dagster.spark.reporting import Reporter, correlated_logging, open_reporter
from cdi_dagster.storage import ObjectMissingError, StorageError, open_storage

STEP: Final = "ingest_daily"
_log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run the job: 0 when the day is published and reported, 1 when it failed, 2 (by SystemExit) when used wrongly."""
    with open_reporter(argv) as (reporter, rest):
        arguments = parse_arguments(rest)
        with correlated_logging(arguments.correlation_id), ended_by_signal():
            try:
                job = IngestDaily(arguments, reporter)
                with spark_context(job.name, encrypts_shuffles=job.shuffles) as spark:
                    report = job.run(spark)
            except Exception as error:  # noqa: BLE001 - the end of every failure: it gets a class and is reported
                reporter.failure(failure_of(error))
                return 1
            reporter.report(STEP, report.to_json())
            return 0


class IngestDaily:
    """One run: reads what was pinned, publishes all of it or nothing, and leaves its report.

    Raises:
        CdiError: INPUT_INVALID where the manifest cannot be read.
    """

    def __init__(self, arguments: IngestArguments, reporter: Reporter) -> None:
        self._started = time.monotonic()
        self._arguments = arguments
        self._reporter = reporter
        self._published = open_storage(arguments.published_root)
        self._pinned = _read_pinned_input(arguments.pinned_input)
        self._collection = find_collection(self._pinned.collection_id)
        self._day, correlation_id = self._collection.on(self._pinned.storage_day), arguments.correlation_id
        self._records_prefix = daily_prefix(self._day)
        self._rejects_prefix = rejects_prefix(self._day, correlation_id)
        self._failure_key = run_failure_key(self._day, correlation_id)

    @property
    def name(self) -> str:
        """Its name on Spark's pages."""
        return f"cdi {STEP} {self._collection.id} {self._pinned.storage_day}"

    @property
    def shuffles(self) -> bool:
        """Whether records pass through Spark's shuffle: its files must not be readable."""
        return self._collection.is_keyed

    def run(self, spark: SparkContext) -> IngestReport:
        """Read, check, publish, report.

        Raises:
            CdiError: what went wrong, with its class; nothing was published then, and `failure.json` has it too.
        """
        try:
            self._settle_earlier_attempts()
            self._require_objects()
            try:
                outcome = self._read_everything(spark)
                self._require_reconciled(outcome)
                self._require_few_rejects(outcome)
                return self._publish(outcome)
            finally:
                self._discard_uploads_if_possible()
        except CdiError as failed:
            write_failure(self._published, self._failure_key, failed)
            raise
        except Exception as error:
            failure = failure_of(error)
            write_failure(self._published, self._failure_key, failure)
            raise failure from error

    def _settle_earlier_attempts(self) -> None:
        """Settle what killed runs of the day left; the published partition stays, or becomes what they had decided."""
        begin_ingestion(self._published, self._day, self._arguments.correlation_id)
        self._published.delete([self._failure_key])

    def _require_objects(self) -> None:
        if not self._pinned.objects and not self._arguments.allow_empty:
            raise CdiError(
                FailureClass.INPUT_INVALID,
                f"The pinned input of {self._collection.id} for {self._pinned.storage_day} holds no objects.",
                next_step="Find out why K2HB wrote nothing; if there really were no events, run with --allow-empty.",
            )

    def _read_everything(self, spark: SparkContext) -> IngestOutcome:
        """Read the day, large objects in parts; every object whole where a part is not as its index states."""
        objects, tasks_per_core = self._pinned.objects, self._arguments.tasks_per_core
        cores = planned_cores(spark)
        large = large_objects(objects, cores=cores, tasks_per_core=tasks_per_core)
        groups = read_groups(open_storage(self._pinned.corporate_root), large) if large else {}
        tasks = plan_tasks(objects, cores=cores, tasks_per_core=tasks_per_core, groups=groups)
        try:
            return self._read_tasks(spark, tasks, cores=cores)
        except CdiError as failed:
            if MISFIT not in failed.detail:
                raise
            _log.warning("Every object is read whole, from the beginning: %s", failed.cause)
        return self._read_tasks(spark, plan_tasks(objects, cores=cores, tasks_per_core=tasks_per_core), cores=cores)

    def _read_tasks(self, spark: SparkContext, tasks: Sequence[ReadTask], *, cores: int) -> IngestOutcome:
        pinned = self._pinned
        divided = sum(1 for task in tasks for piece in task.pieces if piece.extent and piece.is_last)
        self._reporter.progress(
            f"Reading {len(pinned.objects)} objects{f' ({divided} in parts)' if divided else ''}, "
            f"{pinned.input_bytes} bytes: {len(tasks)} tasks on {cores} cores",
            objects_total=len(pinned.objects),
            bytes_total=pinned.input_bytes,
            tasks=len(tasks),
        )
        if not tasks:
            return combine(pinned, [])
        with progress_board(spark, objects=len(pinned.objects), input_bytes=pinned.input_bytes) as board:
            settings = TaskSettings(
                collection=self._collection,
                corporate_root=pinned.corporate_root,
                published_root=self._published.root,
                records_prefix=self._records_prefix,
                rejects_prefix=self._rejects_prefix,
                publication_id=uuid.uuid4().hex[:12],
                correlation_id=self._arguments.correlation_id,
                task_count=len(tasks),
                dense_offsets=not self._arguments.allow_sparse_offsets,
                key_service=self._arguments.key_service,
                progress=board.address,
                row_partitions=plan_partitions(pinned.input_bytes, cores=cores) if self.shuffles else 0,
            )
            made = run_on_spark(
                spark,
                partial(read_rows if self.shuffles else run_task, settings),
                tasks,
                group=f"{STEP} {settings.correlation_id} {settings.publication_id}",
                description=f"ingest {self._collection.id}",
                board=board,
                reporter=self._reporter,
                gathering=_gathering(settings) if self.shuffles else None,
            )
        return combine(pinned, made)

    def _require_reconciled(self, outcome: IngestOutcome) -> None:
        try:
            reconcile(self._pinned, outcome.report.objects, allow_sparse_offsets=self._arguments.allow_sparse_offsets)
            require_all_written(outcome)
        except CdiError:
            self._withhold(outcome, keep_rejects=False)
            raise

    def _require_few_rejects(self, outcome: IngestOutcome) -> None:
        uri = self._published.uri(self._rejects_prefix)
        try:
            require_few_rejects(outcome.report, self._arguments.max_rejected, rejects_uri=uri)
        except CdiError:
            self._withhold(outcome)
            raise

    def _withhold(self, outcome: IngestOutcome, *, keep_rejects: bool = True) -> None:
        withhold_day(
            self._published,
            self._day,
            outcome,
            correlation_id=self._arguments.correlation_id,
            seconds=self._seconds,
            keep_rejects=keep_rejects,
        )

    def _publish(self, outcome: IngestOutcome) -> IngestReport:
        self._reporter.progress(f"Publishing {outcome.report.published} records in {len(outcome.parts)} parts")
        correlation_id = self._arguments.correlation_id
        return publish_day(self._published, self._day, outcome, correlation_id=correlation_id, seconds=self._seconds)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _discard_uploads_if_possible(self) -> None:
        """At the end, its own: another run may have the day's lease by now.

        What made the run fail may make this fail too, and is the failure to report.
        """
        try:
            discard_uploads(self._published, self._day, group=self._arguments.correlation_id)
        except StorageError as error:
            _log.warning("Some uploads of this run could not be discarded; they are never read: %s", error)


def _gathering(settings: TaskSettings) -> Gathering:
    # One task more: it takes the results of the tasks that read.
    return Gathering(partitions=settings.row_partitions + 1, work=partial(write_rows, settings))


def _read_pinned_input(uri: str) -> PinnedInput:
    storage, key = storage_and_key(uri)
    try:
        return PinnedInput.from_json(json.loads(storage.read(key)))
    except ObjectMissingError as error:
        raise CdiError(
            FailureClass.INPUT_INVALID, f"There is no pinned input at {uri}.", next_step="Pin the day first (cdi pin)."
        ) from error
    except ValueError as error:
        raise CdiError(
            FailureClass.INPUT_INVALID, f"The pinned input at {uri} is not JSON.", next_step=RESTORE_MANIFEST
        ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
