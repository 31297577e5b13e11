"""Replaces one partition of one table: complete or absent, and unchanged wherever it is killed.

An attempt has its ORC files in a folder of its own; they are counted there, and only then the metastore's
partition is pointed at the folder, which is one change in the metastore. The previous attempt stays until the next
publication, because a reader may still use it.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.tables import statements
from cdi_dagster.spark.tables.definition import PARTITION_COLUMN
from cdi_dagster.spark.tables.hadoop_folder import HadoopFolder
from cdi_dagster.spark.tables.locations import partition_prefix
from cdi_dagster.spark.tables.rows_job import WrittenRows, require_stored
from cdi_dagster.storage import Storage

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at one partition, written and counted, but not published yet.

    Attributes:
        table: `database.name`.
        export_day: the partition.
        attempt: its id, the name of its folder.
        folder: the folder, as a path for Spark.
        rows: as the files state them.
        stored_bytes: of the ORC files.
        files: ORC files.
        unparsable: values that became null because they are not of their column's type, by column.
    """

    table: str
    export_day: date
    attempt: str
    folder: str
    rows: int
    stored_bytes: int
    files: int
    unparsable: Mapping[str, int]


def ensure_table(spark: SparkSession, table: str, columns: Sequence[tuple[str, str, str]], location: str) -> None:
    """Create the table, or append the columns that it lacks.

    Args:
        spark: the session.
        table: `database.name`.
        columns: (name, type, comment), without the partition column.
        location: its location; every partition has its own below it.

    Raises:
        CdiError: INPUT_INVALID where a column has another type in the table, or the table is partitioned otherwise.
    """
    ensure_database(spark, table)
    if not spark.catalog.tableExists(table):
        spark.sql(statements.create_table(table, columns, location))
        return
    present = spark.table(table).schema
    types = {field.name.lower(): field.dataType.simpleString() for field in present.fields}
    partitioning = [column.name for column in spark.catalog.listColumns(table) if column.isPartition]
    if partitioning != [PARTITION_COLUMN]:
        raise _not_ours(table, f"is partitioned by {', '.join(partitioning) or 'nothing'}, not by {PARTITION_COLUMN}")
    for name, kind, _ in columns:
        if types.get(name, kind) != kind:
            raise _not_ours(table, f"has the column {name} as {types[name]}, the definition has it as {kind}")
    missing = [column for column in columns if column[0] not in types]
    if missing:
        _log.info("%s gets the new columns %s", table, ", ".join(name for name, _, _ in missing))
        spark.sql(statements.add_columns(table, missing))


def ensure_database(spark: SparkSession, table: str) -> None:
    """Create the database of a table or view if there is none (otherwise the job's role needs no right to create)."""
    database = table.split(".")[0]
    if not spark.catalog.databaseExists(database):
        spark.sql(f"CREATE DATABASE IF NOT EXISTS {database}")


def store_attempt(
    published: Storage,
    written: WrittenRows,
    *,
    table: str,
    export_day: date,
    attempt: str,
    folder: str,
    **made_from: Any,
) -> Attempt:
    """Make the files of an attempt appear in its own folder, with a mark of what it was made from.

    Raises:
        CdiError: COUNTS_DO_NOT_RECONCILE where a stored file does not hold the rows that were written.
    """
    mark = {"table": table, "export_day": export_day.isoformat(), "rows": written.rows, **made_from}
    prefix = f"{partition_prefix(table, export_day)}{attempt}/"
    prepared = [file.prepared for file in written.files]
    content = json.dumps(mark, indent=2, sort_keys=True).encode()
    published.publish(prefix, prepared, content, group=str(made_from["correlation_id"]))
    require_stored(published, written.files)
    return Attempt(
        table=table,
        export_day=export_day,
        attempt=attempt,
        folder=folder,
        rows=written.rows,
        stored_bytes=sum(file.size_bytes for file in prepared),
        files=len(prepared),
        unparsable=written.unparsable,
    )


def publish_attempt(spark: SparkSession, attempt: Attempt, attempts_folder: str) -> None:
    """Point the partition at the attempt, and delete older attempts except the one published before.

    Raises:
        CdiError: DUPLICATE_RUN where the attempt's files vanished meanwhile: another run of the day cleans up as this
            one does. The partition is then unchanged.
    """
    before = published_folder(spark, attempt.table, attempt.export_day)
    if before is None:
        spark.sql(statements.add_partition(attempt.table, attempt.export_day, attempt.folder))
    _point_at(spark, attempt.table, attempt.export_day, attempt.folder)
    if len(HadoopFolder(spark, attempt.folder).data_files()) != attempt.files:
        if before:
            _point_at(spark, attempt.table, attempt.export_day, before)
        raise CdiError(
            FailureClass.DUPLICATE_RUN,
            f"{attempt.table} for {attempt.export_day} is being published by another run, which removed this attempt.",
            detail={"table": attempt.table, "attempt": attempt.attempt},
        )
    kept = {attempt.attempt, before.rstrip("/").rpartition("/")[2] if before else attempt.attempt}
    _delete_attempts(spark, attempts_folder, kept)


def published_folder(spark: SparkSession, table: str, export_day: date) -> str | None:
    """Return the partition's location in the metastore, or None where there is no partition."""
    selected = statements.partition(export_day)
    if not spark.sql(f"SHOW PARTITIONS {table} {selected}").take(1):
        return None
    for row in spark.sql(f"DESCRIBE TABLE EXTENDED {table} {selected}").collect():
        if row["col_name"] == "Location":
            return str(row["data_type"])
    return None


def _point_at(spark: SparkSession, table: str, export_day: date, folder: str) -> None:
    spark.sql(statements.set_location(table, export_day, folder))  # one change in the metastore: all or nothing
    spark.sql(f"REFRESH TABLE {table}")


def _delete_attempts(spark: SparkSession, attempts_folder: str, kept: set[str]) -> None:
    attempts = HadoopFolder(spark, attempts_folder)
    for name in attempts.folders():
        if name not in kept:
            try:
                attempts.delete(name)
            except Py4JJavaError as error:
                # The partition is published; the next publication tries again.
                _log.warning("The old attempt %s/%s stays: %s", attempts_folder, name, error.java_exception.getClass())


def _not_ours(table: str, what: str) -> CdiError:
    return CdiError(
        FailureClass.INPUT_INVALID,
        f"The table {table} {what}.",
        next_step=f"Change the definition (--table-config) to fit, or drop {table}: it is external, so its files stay, "
        "and every day's tables can be materialised again.",
        detail={"table": table},
    )
