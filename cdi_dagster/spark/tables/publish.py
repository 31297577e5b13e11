"""Publishes a table set for one storage day: every table written and counted first, then each appears, then the views.

Knows no command line and starts no session: that is `cdi_dagster.spark.tables.job`.
"""

import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from uuid import uuid4

from pyspark.sql import DataFrame, Observation, SparkSession

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.tables_report import PublishedTable, TablesReport
from cdi_dagster.published.mark import Mark
from cdi_dagster.spark.reporting import Reporter
from cdi_dagster.spark.tables import statements, transforms
from cdi_dagster.spark.tables.daily_records import read_records
from cdi_dagster.spark.tables.definition import PARTITION_COLUMN, TableKind, TableSet
from cdi_dagster.spark.tables.locations import attempt_mark_key, partition_prefix, spark_path, table_prefix
from cdi_dagster.spark.tables.partition import (
    Attempt,
    attempt_mark,
    ensure_table,
    publish_attempt,
    write_attempt,
)
from cdi_dagster.spark.tables.views import ensure_view
from cdi_dagster.storage import Storage

_SESSION_CONF = {
    # Days are UTC days; without this a time without a zone would be read in the machine's zone.
    "spark.sql.session.timeZone": "UTC",
    # Whatever the cluster's defaults: a missing or damaged part fails the job.
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.files.ignoreCorruptFiles": "false",
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
    attempts = []
    for kind in request.tables:
        if not kind.is_view:
            reporter.progress(f"Writing {table_set.names[kind]} for {request.export_day}", table=kind)
            attempts.append((kind, *day_tables.write(kind)))
    tables = []
    for kind, attempt, seconds in attempts:
        tables.append(day_tables.publish(kind, attempt, seconds))
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
        defined=tuple(TableKind),
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

    def write(self, kind: TableKind) -> tuple[Attempt, float]:
        """Write and count an attempt at a table; return it and the seconds it took."""
        started = time.monotonic()
        table, export_day = self._table_set.names[kind], self._request.export_day
        ensure_table(self._spark, table, self._columns(kind), self._path(table_prefix(table)))
        rows, observation = self._rows(kind)
        attempt = write_attempt(
            rows,
            table=table,
            export_day=export_day,
            attempt=self._attempt,
            folder=self._path(f"{partition_prefix(table, export_day)}{self._attempt}"),
            expected_rows=self._records.published,
            expected_text_bytes=self._records.text_bytes if kind is TableKind.RAW else None,
            observation=observation,
        )
        mark = attempt_mark(
            attempt,
            correlation_id=self._request.correlation_id,
            fingerprint=self._records.fingerprint,
            table_config_sha256=self._table_set.sha256,
        )
        self._published.write(attempt_mark_key(table, export_day, self._attempt), mark)
        return attempt, time.monotonic() - started

    def publish(self, kind: TableKind, attempt: Attempt, seconds: float) -> PublishedTable:
        """Let a written attempt appear."""
        started = time.monotonic()
        prefix = partition_prefix(attempt.table, attempt.export_day)
        publish_attempt(self._spark, attempt, self._path(prefix))
        return PublishedTable(
            kind=kind,
            name=attempt.table,
            rows=attempt.rows,
            columns=len(self._columns(kind)),
            seconds=round(seconds + time.monotonic() - started, 3),
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

    def _rows(self, kind: TableKind) -> tuple[DataFrame, Observation | None]:
        lines = read_records(self._spark, self._published, self._records, s3_scheme=self._request.s3_scheme)
        if kind is TableKind.RAW:
            return lines, None
        # An empty plan never delivers an observation: waiting for it would never end.
        typed = any(column.type != "string" for column in self._table_set.columns)
        observation = Observation(f"unparsable {self._attempt}") if typed and self._records.parts else None
        return transforms.managed_rows(lines, self._table_set.columns, observation), observation

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
