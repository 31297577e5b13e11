"""Publishes the tables of one storage day: every table written and counted first, then each appears, then the views.

Knows no command line and starts no session: that is `cdi_dagster.spark.tables.job`.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pyspark.sql import SparkSession

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.table_definition import PARTITION_COLUMN, Table, TableDefinition, TableKind
from cdi_dagster.core.tables_report import PublishedTable, TablesReport
from cdi_dagster.published.mark import Mark
from cdi_dagster.published.snapshot_mark import SnapshotMark
from cdi_dagster.spark.reporting import Reporter
from cdi_dagster.spark.tables import statements
from cdi_dagster.spark.tables.locations import (
    attempt_prefix,
    database_prefix,
    partition_prefix,
    spark_path,
    table_prefix,
)
from cdi_dagster.spark.tables.metastore import ensure_table, ensure_view, require_fits
from cdi_dagster.spark.tables.partition import Attempt, delete_attempt, new_attempt_id, publish_attempt, store_attempt
from cdi_dagster.spark.tables.rows_job import WrittenRows, write_rows, write_snapshot_rows
from cdi_dagster.spark.tables.rows_task import TableOutput
from cdi_dagster.spark.tables.statements import identifier
from cdi_dagster.storage import Storage, StorageError

_log = logging.getLogger(__name__)

_SESSION_CONF = {
    # Days are UTC days; without this a time without a zone would be read in the machine's zone.
    "spark.sql.session.timeZone": "UTC",
    # Whatever the cluster's defaults: a missing or damaged part fails the job.
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.files.ignoreCorruptFiles": "false",
    # A comment or name that holds ${env:NAME} stays as it is: substituted, the environment would reach the metastore.
    "spark.sql.variable.substitute": "false",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """The request of one run.

    Attributes:
        collection: whose records.
        storage_day: the day.
        correlation_id: of the run.
        definition: of the collection's tables.
        tables: which of them, in order of publication.
    """

    collection: Collection
    storage_day: date
    correlation_id: str
    definition: TableDefinition
    tables: tuple[Table, ...]

    @property
    def export_day(self) -> date:
        """The partition."""
        return export_day_of(self.storage_day)


def publish(
    spark: SparkSession,
    request: Request,
    records: Mark | SnapshotMark,
    published: Storage,
    reporter: Reporter,
    *,
    catalogue: AbstractContextManager[None] | None = None,
) -> TablesReport:
    """Publish the requested tables: first every attempt is written and counted, then each appears.

    Args:
        spark: the session.
        request: what to publish.
        records: mark of the day's records, or of a snapshot.
        published: where both are.
        reporter: gets the progress.
        catalogue: entered while the session uses its catalogue, which is then not before the rows are written; None
            for a catalogue that is always at hand, so that a table that does not fit is found before that.

    Raises:
        CdiError: INPUT_INVALID, COUNTS_DO_NOT_RECONCILE or DUPLICATE_RUN; nothing half published.
    """
    started = time.monotonic()
    for name, value in _SESSION_CONF.items():
        spark.conf.set(name, value)
    day_tables = _DayTables(spark, request, records, published)
    written = [table for table in request.tables if table.kind is not TableKind.VIEW]
    if catalogue is None:
        for table in written:
            require_fits(spark, table)
    attempts = day_tables.write(written, reporter)
    with catalogue or nullcontext():
        if catalogue is not None:
            day_tables.require_fit(attempts)
        tables = day_tables.appear(attempts, reporter)
    return TablesReport(
        correlation_id=request.correlation_id,
        collection_id=request.collection.id,
        storage_day=request.storage_day.isoformat(),
        export_day=request.export_day.isoformat(),
        fingerprint=records.fingerprint,
        records=records.published,
        definition=request.definition.source,
        definition_sha256=request.definition.sha256,
        tables=tuple(tables),
        seconds=round(time.monotonic() - started, 3),
        defined=tuple(table.name for table in request.definition.tables),
        slow_records=day_tables.slow_records,
    )


class _DayTables:
    """One run's work on the tables of a day."""

    def __init__(self, spark: SparkSession, request: Request, records: Mark | SnapshotMark, published: Storage) -> None:
        self._spark = spark
        self._request = request
        self._records = records
        self._published = published
        self._attempt = new_attempt_id(datetime.now(UTC))
        self.slow_records = 0
        self._writing_seconds = 0.0
        self._managed_rows: int | None = None  # of the partition that this run published

    def write(self, tables: Sequence[Table], reporter: Reporter) -> list[Attempt]:
        """Write and count an attempt at each table, all in one pass over the records."""
        started, export_day = time.monotonic(), self._request.export_day
        if not tables:
            return []
        reporter.progress(f"Writing {', '.join(table.name for table in tables)} for {export_day}")
        for table in tables:
            self._end_killed_runs(table)
        try:
            written = self._write_rows(tables, reporter)
            attempts = [
                store_attempt(
                    self._published,
                    written[table.name],
                    table=table,
                    export_day=export_day,
                    attempt=self._attempt,
                    folder=self._path(attempt_prefix(table, export_day, self._attempt)),
                    correlation_id=self._request.correlation_id,
                    fingerprint=self._records.fingerprint,
                    definition_sha256=self._request.definition.sha256,
                )
                for table in tables
            ]
        finally:
            self._discard_uploads(tables)
        self._writing_seconds = time.monotonic() - started
        self.slow_records = max(of_table.slow_records for of_table in written.values())
        return attempts

    def _end_killed_runs(self, table: Table) -> None:
        """Let what one had decided become a whole attempt, which the next publication deletes; discard all else.

        Whoever starts the job holds the lease: of the day; or of all the snapshots' tables, as their attempts lie
        in one place whatever the Friday.
        """
        prefix = partition_prefix(table, self._request.export_day)
        self._published.recover(prefix)
        self._published.discard(prefix, group=None)

    def _write_rows(self, tables: Sequence[Table], reporter: Reporter) -> dict[str, WrittenRows]:
        outputs = {table.name: self._output(table) for table in tables}
        if isinstance(self._records, SnapshotMark):
            written = {}
            for name, output in outputs.items():  # one after the other: each has columns of its own
                written[name] = write_snapshot_rows(
                    self._spark,
                    self._records,
                    output,
                    table=name,
                    published=self._published,
                    attempt=self._attempt,
                    correlation_id=self._request.correlation_id,
                )
                reporter.progress(f"Wrote {written[name].rows} rows for {name}")
            return written
        return write_rows(
            self._spark.sparkContext,
            self._records,
            outputs,
            published=self._published,
            attempt=self._attempt,
            export_day=self._request.export_day,
            correlation_id=self._request.correlation_id,
            reporter=reporter,
        )

    def require_fit(self, attempts: Sequence[Attempt]) -> None:
        """Return where the tables fit what was written; delete all of it where one does not."""
        try:
            for attempt in attempts:
                require_fits(self._spark, attempt.table)
        except CdiError:
            for attempt in attempts:
                delete_attempt(self._published, attempt)
            raise

    def appear(self, attempts: Sequence[Attempt], reporter: Reporter) -> list[PublishedTable]:
        """Let every attempt appear, then the views."""
        tables = []
        for attempt in attempts:
            tables.append(self.publish(attempt))
            reporter.progress(f"Published {attempt.rows} rows in {tables[-1].name}", table=tables[-1].name)
        managed = self._request.definition.managed
        for table in self._request.tables:
            if table.kind is TableKind.VIEW and managed:
                tables.append(self.view(table, managed))
                reporter.progress(f"{table.name} shows {tables[-1].rows} rows", table=table.name)
        return tables

    def publish(self, attempt: Attempt) -> PublishedTable:
        """Let a written attempt appear."""
        started = time.monotonic()
        table = attempt.table
        ensure_table(
            self._spark,
            table,
            location=self._path(table_prefix(table)) if table.is_partitioned else attempt.folder,
            database_location=self._path(database_prefix(table.database)),
        )
        publish_attempt(self._spark, self._published, attempt)
        if table.kind is TableKind.MANAGED:
            self._managed_rows = attempt.rows
        return PublishedTable(
            kind=table.kind,
            name=table.name,
            rows=attempt.rows,
            columns=len(table.columns),
            seconds=round(self._writing_seconds + time.monotonic() - started, 3),
            location=self._published.uri(attempt_prefix(table, attempt.export_day, attempt.attempt)),
            stored_bytes=attempt.stored_bytes,
            files=attempt.files,
            unparsable=attempt.unparsable,
        )

    def view(self, view: Table, managed: Table) -> PublishedTable:
        """Create or change a view as defined, and check that it shows the day's records."""
        started = time.monotonic()
        if not self._spark.catalog.tableExists(identifier(managed.name)):
            raise self._managed_first(f"There is no table {managed.name} yet")
        select = statements.view_select(managed.name, view.columns)
        location = self._path(database_prefix(view.database))
        action = ensure_view(self._spark, view, select, database_location=location)
        rows = self._managed_rows
        if rows is None:
            shown = self._spark.table(identifier(view.name))
            rows = shown.where(f"{PARTITION_COLUMN} = '{self._request.export_day}'").count()
        records = self._records.published
        if rows != records:
            raise self._managed_first(
                f"{view.name} shows {rows} rows of {self._request.export_day}, the daily records are {records}"
            )
        return PublishedTable(
            kind=view.kind,
            name=view.name,
            rows=rows,
            columns=len(view.columns),
            seconds=round(time.monotonic() - started, 3),
            action=action,
        )

    def _output(self, table: Table) -> TableOutput:
        prefix = attempt_prefix(table, self._request.export_day, self._attempt)
        return TableOutput(prefix=prefix, columns=None if table.kind is TableKind.RAW else table.columns)

    def _discard_uploads(self, tables: Sequence[Table]) -> None:
        """Of failed and repeated tasks. What made the run fail may make this fail too, and is the failure to report."""
        for table in tables:
            prefix = partition_prefix(table, self._request.export_day)
            try:
                self._published.discard(prefix, group=self._request.correlation_id)
            except StorageError as error:
                _log.warning("Some uploads to %s could not be discarded; they are never read: %s", prefix, error)

    def _path(self, prefix: str) -> str:
        return spark_path(self._published.uri(prefix)).rstrip("/")

    def _managed_first(self, cause: str) -> CdiError:
        return CdiError(
            FailureClass.INPUT_INVALID,
            f"{cause}.",
            next_step="Materialise the managed table of the day, then its views.",
        )
