"""Replaces one partition of one table: complete or absent, and unchanged wherever it is killed.

An attempt writes its ORC files to a folder of its own, counts them there, and only then points the metastore's
partition at the folder, which is one change in the metastore. The previous attempt stays until the next publication,
because a reader may still use it.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import uuid4

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.table_definition import Table
from cdi_dagster.spark.tables import statements
from cdi_dagster.spark.tables.locations import attempt_mark_key, escape_glob, partition_prefix, same_place
from cdi_dagster.spark.tables.metastore import published_folder
from cdi_dagster.spark.tables.statements import identifier
from cdi_dagster.storage import ObjectMissingError, Storage, StorageError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at one partition, written and counted, but not published yet.

    Attributes:
        table: whose.
        export_day: the partition.
        attempt: its id, the name of its folder.
        folder: the folder, as a path for Spark.
        rows: rows, as read back.
        stored_bytes: of the ORC files.
        files: ORC files.
        unparsable: values that became null because they are not of their column's type, by column.
    """

    table: Table
    export_day: date
    attempt: str
    folder: str
    rows: int
    stored_bytes: int
    files: int
    unparsable: Mapping[str, int]


def write_attempt(
    rows: DataFrame,
    published: Storage,
    *,
    table: Table,
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
        published: where `folder` is.
        table: whose.
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
            f"{table.name} for {export_day} would hold {found} rows"
            + (f" of {text_bytes} bytes" if text_bytes is not None else "")
            + f", but the daily records are {expected_rows}"
            + (f" of {expected_text_bytes} bytes" if text_bytes is not None else "")
            + ". The partition is unchanged.",
            next_step="Run the day again, then its tables; if it happens again, report a defect.",
            detail={"table": table.name, "rows": found, "expected_rows": expected_rows},
        )
    files = _data_files(published, table, export_day, attempt)
    return Attempt(
        table=table,
        export_day=export_day,
        attempt=attempt,
        folder=folder,
        rows=found,
        stored_bytes=sum(stored.size_bytes for stored in files),
        files=len(files),
        unparsable=unparsable,
    )


def publish_attempt(spark: SparkSession, published: Storage, attempt: Attempt, mark: Mapping[str, Any]) -> None:
    """Point the partition at the attempt, and delete what the attempt published before it had replaced.

    Several metastores may have tables over one published root, each with an attempt of its own in a partition. So only
    that attempt is deleted which this metastore is known to have replaced, and those that were never about to be
    published: what a killed run left. (A run that is still at work on one notices, see below.)

    Args:
        spark: the session.
        published: where the attempt is.
        attempt: written and counted.
        mark: its input and content, for its description.

    Raises:
        CdiError: DUPLICATE_RUN where the attempt's files vanished meanwhile. The partition is then unchanged.
    """
    table, export_day = attempt.table, attempt.export_day
    before = published_folder(spark, table.name, export_day)
    previous = _attempt_in(before, attempt) if before else None
    replaced = _mark_of(published, table, export_day, previous).get("replaces") if previous else None
    written = {**mark, "table": table.name, "export_day": export_day.isoformat(), "rows": attempt.rows}
    published.write(
        attempt_mark_key(table, export_day, attempt.attempt),
        json.dumps({**written, "replaces": previous}, indent=2, sort_keys=True).encode(),
    )
    if before is None:
        spark.sql(statements.add_partition(table.name, export_day, attempt.folder))
    _point_at(spark, table.name, export_day, attempt.folder)
    if len(_data_files(published, table, export_day, attempt.attempt)) != attempt.files:
        if before:
            _point_at(spark, table.name, export_day, before)
        raise CdiError(
            FailureClass.DUPLICATE_RUN,
            f"{table.name} for {export_day} is being published by another run, which removed this attempt.",
            detail={"table": table.name, "attempt": attempt.attempt},
        )
    superseded = {*_unmarked(published, table, export_day), replaced} - {attempt.attempt, previous, None}
    _delete_attempts(published, table, export_day, superseded)


def _point_at(spark: SparkSession, table: str, export_day: date, folder: str) -> None:
    spark.sql(statements.set_location(table, folder, export_day))  # one change in the metastore: all or nothing
    spark.sql(f"REFRESH TABLE {identifier(table)}")


def _read_back(rows: DataFrame, folder: str, *, measure: bool) -> tuple[int, int | None]:
    stored = rows.sparkSession.read.schema(rows.schema).orc(escape_glob(folder))
    if not measure:
        return stored.count(), None
    found = stored.agg(F.count("*").alias("rows"), F.coalesce(F.sum(F.octet_length("val")), F.lit(0)).alias("bytes"))
    row = found.collect()[0]
    return int(row["rows"]), int(row["bytes"])


def _data_files(published: Storage, table: Table, export_day: date, attempt: str) -> list[StoredObject]:
    """Return an attempt's data files, without those that Spark and Hive skip (`_`, `.`)."""
    prefix = f"{partition_prefix(table, export_day)}{attempt}/"
    stored = published.list(prefix)
    return [found for found in stored if not found.key.removeprefix(prefix).startswith(("_", "."))]


def new_attempt_id(now: datetime) -> str:
    """Return an id that no other attempt has."""
    return f"{now:%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}"


def _attempt_in(folder: str, attempt: Attempt) -> str | None:
    """Return the id of the attempt that a location is, or None where it is none of this partition's."""
    parent, _, name = folder.rstrip("/").rpartition("/")
    return name if same_place(parent, attempt.folder.rpartition("/")[0]) else None


def _mark_of(published: Storage, table: Table, export_day: date, attempt: str) -> dict[str, Any]:
    try:
        return dict(json.loads(published.read(attempt_mark_key(table, export_day, attempt))))
    except (ObjectMissingError, ValueError):
        return {}


def _unmarked(published: Storage, table: Table, export_day: date) -> set[str]:
    """Return the attempts that have no description: none was about to be published."""
    prefix = partition_prefix(table, export_day)
    keys = [stored.key for stored in published.list(prefix)]
    attempts = {key.removeprefix(prefix).split("/")[0] for key in keys if "/" in key.removeprefix(prefix)}
    return {attempt for attempt in attempts if attempt_mark_key(table, export_day, attempt) not in keys}


def _delete_attempts(published: Storage, table: Table, export_day: date, attempts: Iterable[str | None]) -> None:
    for attempt in attempts:
        prefix = f"{partition_prefix(table, export_day)}{attempt}/"
        try:
            published.delete([stored.key for stored in published.list(prefix)])
        except StorageError as error:
            # The partition is published; what stays costs its space, no more.
            _log.warning("The old attempt %s stays: %s", published.uri(prefix), error)
