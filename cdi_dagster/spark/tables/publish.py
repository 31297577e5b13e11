"""Publishes a table set for one storage day: every table written and counted first, then each appears, then the views.

Knows no command line and starts no session: that is `cdi_dagster.spark.tables.job`.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from uuid import uuid4

from pyspark.sql import SparkSession

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.tables_report import PublishedTable, TablesReport
from cdi_dagster.published.mark import Mark
from cdi_dagster.spark.reporting import Reporter
from cdi_dagster.spark.tables import statements
from cdi_dagster.spark.tables.definition import PARTITION_COLUMN, TableKind, TableSet
from cdi_dagster.spark.tables.locations import partition_prefix, spark_path, table_prefix
from cdi_dagster.spark.tables.partition import Attempt, ensure_table, publish_attempt, store_attempt
from cdi_dagster.spark.tables.rows_job import WrittenRows, write_rows
from cdi_dagster.spark.tables.rows_task import TableOutput
from cdi_dagster.spark.tables.views import ensure_view
from cdi_dagster.storage import Storage, StorageError

_LOG = logging.getLogger(__name__)

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
        tables: which members of the table set, in order of publication.
        table_config: URI or path of a definition, or None for the one that ships for the collection.
        s3_scheme: scheme under which Spark knows S3.
    """

    collection: Collection
    storage_day: date
    correlation_id: str
    tables: tuple[TableKind, ...] = tuple(TableKind)
    table_config: str | None = None
    s3_scheme: str = "s3a"

    @property
    def export_day(self) -> date:
        """The partition."""
        return export_day_of(self.storage_day)


def publish(
    spark: SparkSession,
    request: Request,
    table_set: TableSet,
    records: Mark,
    published: Storage,
    reporter: Reporter,
) -> TablesReport:
    """Publish the requested tables: first every attempt is written and counted, then each appears.

    Raises:
        CdiError: INPUT_INVALID, COUNTS_DO_NOT_RECONCILE or DUPLICATE_RUN; nothing half published.
    """
    started = time.monotonic()
    for name, value in _SESSION_CONF.items():
        spark.conf.set(name, value)
    day_tables = _DayTables(spark, request, table_set, records, published)
    attempts = day_tables.write([kind for kind in request.tables if not kind.is_view], reporter)
    tables = []
    for kind, attempt in attempts.items():
        tables.append(day_tables.publish(kind, attempt))
        reporter.progress(f"Published {attempt.rows} rows in {attempt.table}", table=kind, rows=attempt.rows)
    for kind in request.tables:
        if kind.is_view:
            tables.append(day_tables.view(kind))
            reporter.progress(f"{tables[-1].name} shows {tables[-1].rows} rows", table=kind, rows=tables[-1].rows)
    return TablesReport(
        correlation_id=request.correlation_id,
        collection_id=request.collection.id,
        storage_day=request.storage_day.isoformat(),
        export_day=request.export_day.isoformat(),
        fingerprint=records.fingerprint,
        records=records.published,
        table_config=table_set.source,
        table_config_sha256=table_set.sha256,
        tables=tuple(tables),
        seconds=round(time.monotonic() - started, 3),
        slow_records=day_tables.slow_records,
    )


class _DayTables:
    """One run's work on one table set."""

    def __init__(
        self, spark: SparkSession, request: Request, table_set: TableSet, records: Mark, published: Storage
    ) -> None:
        self._spark = spark
        self._request = request
        self._table_set = table_set
        self._records = records
        self._published = published
        self._attempt = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}"
        self.slow_records = 0
        self._writing_seconds = 0.0
        self._managed_rows: int | None = None  # of the partition that this run published

    def write(self, kinds: Sequence[TableKind], reporter: Reporter) -> dict[TableKind, Attempt]:
        """Write and count an attempt at each table, all in one pass over the records."""
        if not kinds:
            return {}
        started = time.monotonic()
        names = ", ".join(self._table_set.names[kind] for kind in kinds)
        reporter.progress(f"Writing {names} for {self._request.export_day}")
        for kind in kinds:  # what a killed run had begun becomes a whole attempt, which the next publication deletes
            self._published.recover(partition_prefix(self._table_set.names[kind], self._request.export_day))
        try:
            written = write_rows(
                self._spark.sparkContext,
                self._records,
                {self._table_set.names[kind]: self._output(kind) for kind in kinds},
                published=self._published,
                attempt=self._attempt,
                export_day=self._request.export_day,
                correlation_id=self._request.correlation_id,
                reporter=reporter,
            )
            attempts = {kind: self._stored(kind, written[self._table_set.names[kind]]) for kind in kinds}
        finally:
            self._discard_uploads(kinds)
        self._writing_seconds = time.monotonic() - started
        self.slow_records = max(of_table.slow_records for of_table in written.values())
        return attempts

    def _stored(self, kind: TableKind, written: WrittenRows) -> Attempt:
        table, export_day = self._table_set.names[kind], self._request.export_day
        return store_attempt(
            self._published,
            written,
            table=table,
            export_day=export_day,
            attempt=self._attempt,
            folder=self._path(f"{partition_prefix(table, export_day)}{self._attempt}"),
            correlation_id=self._request.correlation_id,
            fingerprint=self._records.fingerprint,
            table_config_sha256=self._table_set.sha256,
        )

    def _output(self, kind: TableKind) -> TableOutput:
        prefix = f"{partition_prefix(self._table_set.names[kind], self._request.export_day)}{self._attempt}/"
        return TableOutput(prefix=prefix, columns=None if kind is TableKind.RAW else self._table_set.columns)

    def _discard_uploads(self, kinds: Sequence[TableKind]) -> None:
        """Of failed and repeated tasks. What made the run fail may make this fail too, and is the failure to report."""
        for kind in kinds:
            prefix = partition_prefix(self._table_set.names[kind], self._request.export_day)
            try:
                self._published.discard(prefix, group=self._request.correlation_id)
            except StorageError as error:
                _LOG.warning("Some uploads to %s could not be discarded; they are never read: %s", prefix, error)

    def publish(self, kind: TableKind, attempt: Attempt) -> PublishedTable:
        """Let a written attempt appear."""
        started = time.monotonic()
        table = attempt.table
        ensure_table(self._spark, table, self._columns(kind), self._path(table_prefix(table)))
        prefix = partition_prefix(attempt.table, attempt.export_day)
        publish_attempt(self._spark, attempt, self._path(prefix))
        if kind is TableKind.MANAGED:
            self._managed_rows = attempt.rows
        return PublishedTable(
            kind=kind,
            name=attempt.table,
            rows=attempt.rows,
            columns=len(self._columns(kind)),
            seconds=round(self._writing_seconds + time.monotonic() - started, 3),
            location=self._published.uri(f"{prefix}{attempt.attempt}/"),
            stored_bytes=attempt.stored_bytes,
            files=attempt.files,
            unparsable=attempt.unparsable,
        )

    def view(self, kind: TableKind) -> PublishedTable:
        """Create or change a view as defined, and check that it shows the day's records."""
        started = time.monotonic()
        view, managed = self._table_set.names[kind], self._table_set.names[TableKind.MANAGED]
        if not self._spark.catalog.tableExists(managed):
            raise self._managed_first(f"There is no table {managed} yet")
        shown = self._table_set.columns_shown(kind)
        action = ensure_view(self._spark, view, statements.view_select(managed, shown))
        rows = self._managed_rows
        if rows is None:
            rows = self._spark.table(view).where(f"{PARTITION_COLUMN} = '{self._request.export_day}'").count()
        records = self._records.published
        if rows != records:
            raise self._managed_first(
                f"{view} shows {rows} rows of {self._request.export_day}, the daily records are {records}"
            )
        return PublishedTable(
            kind=kind,
            name=view,
            rows=rows,
            columns=len(shown),
            seconds=round(time.monotonic() - started, 3),
            action=action,
        )

    def _columns(self, kind: TableKind) -> list[tuple[str, str, str]]:
        if kind is TableKind.RAW:
            return [("val", "string", "The record, exactly")]
        return [(column.name, column.type, column.comment) for column in self._table_set.columns]

    def _path(self, prefix: str) -> str:
        return spark_path(self._published.uri(prefix), s3_scheme=self._request.s3_scheme).rstrip("/")

    def _managed_first(self, cause: str) -> CdiError:
        return CdiError(
            FailureClass.INPUT_INVALID,
            f"{cause}.",
            next_step="Materialise the managed table of the day, then its views.",
        )
