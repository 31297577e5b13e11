"""Replaces one partition of one table: complete or absent, and unchanged wherever it is killed.

An attempt writes its ORC files to a folder of its own, counts them there, and only then points the metastore's
partition at the folder, which is one change in the metastore. The previous attempt stays until the next publication,
because a reader may still use it.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.tables import statements
from cdi_dagster.spark.tables.definition import PARTITION_COLUMN
from cdi_dagster.spark.tables.hadoop_folder import HadoopFolder
from cdi_dagster.spark.tables.locations import escape_glob

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at one partition, written and counted, but not published yet.

    Attributes:
        table: `database.name`.
        export_day: the partition.
        attempt: its id, the name of its folder.
        folder: the folder, as a path for Spark.
        rows: rows, as read back.
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


def write_attempt(
    rows: DataFrame,
    *,
    table: str,
    export_day: date,
    attempt: str,
    folder: str,
    expected_rows: int,
    observation: Observation | None = None,
    expected_text_bytes: int | None = None,
) -> Attempt:
    """Write the rows to the attempt's own folder and read them back.

    Args:
        rows: what to write, without the partition column.
        table: `database.name`.
        export_day: the partition.
        attempt: id of the attempt.
        folder: its folder, new.
        expected_rows: how many rows there must be.
        observation: counts, somewhere below `rows`, the values that become null (`Attempt.unparsable`).
        expected_text_bytes: how many bytes the column `val` must hold in all, newlines not counted.

    Raises:
        CdiError: COUNTS_DO_NOT_RECONCILE where the written rows are not the expected ones.
    """
    rows.write.mode("errorifexists").option("compression", "zlib").orc(folder)
    unparsable = {name: int(count) for name, count in observation.get.items() if count} if observation else {}
    found, text_bytes = _read_back(rows, folder, measure=expected_text_bytes is not None)
    if found != expected_rows or text_bytes != expected_text_bytes:
        raise CdiError(
            FailureClass.COUNTS_DO_NOT_RECONCILE,
            f"{table} for {export_day} would hold {found} rows"
            + (f" of {text_bytes} bytes" if text_bytes is not None else "")
            + f", but the daily records are {expected_rows}"
            + (f" of {expected_text_bytes} bytes" if text_bytes is not None else "")
            + ". The partition is unchanged.",
            next_step="Run the day again, then its tables; if it happens again, report a defect.",
            detail={"table": table, "rows": found, "expected_rows": expected_rows},
        )
    files = HadoopFolder(rows.sparkSession, folder).data_files()
    return Attempt(
        table=table,
        export_day=export_day,
        attempt=attempt,
        folder=folder,
        rows=found,
        stored_bytes=sum(files.values()),
        files=len(files),
        unparsable=unparsable,
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


def _read_back(rows: DataFrame, folder: str, *, measure: bool) -> tuple[int, int | None]:
    stored = rows.sparkSession.read.schema(rows.schema).orc(escape_glob(folder))
    if not measure:
        return stored.count(), None
    found = stored.agg(F.count("*").alias("rows"), F.coalesce(F.sum(F.octet_length("val")), F.lit(0)).alias("bytes"))
    row = found.collect()[0]
    return int(row["rows"]), int(row["bytes"])


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


def attempt_mark(attempt: Attempt, **made_from: Any) -> bytes:
    """Return an attempt's description: its input and its content."""
    values = {"table": attempt.table, "export_day": attempt.export_day.isoformat(), "rows": attempt.rows, **made_from}
    return json.dumps(values, indent=2, sort_keys=True).encode()
