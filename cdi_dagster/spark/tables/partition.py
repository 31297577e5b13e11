"""Replaces a partition of a table, or all of one without: complete or absent, unchanged wherever it is killed.

An attempt has its ORC files in a folder of its own; they are counted there, and only then the metastore's
partition is pointed at the folder, which is one change in the metastore. The previous attempt stays until the next
publication, because a reader may still use it.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import uuid4

from pyspark.sql import SparkSession

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.table_definition import Table
from cdi_dagster.spark.tables import statements
from cdi_dagster.spark.tables.locations import attempt_mark_key, attempt_prefix, partition_prefix, same_place
from cdi_dagster.spark.tables.metastore import published_folder
from cdi_dagster.spark.tables.rows_job import WrittenRows, require_stored
from cdi_dagster.spark.tables.statements import identifier
from cdi_dagster.storage import ObjectMissingError, Storage, StorageError

_log = logging.getLogger(__name__)

_ATTEMPT = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at one partition, written and counted, but not published yet.

    Attributes:
        table: whose.
        export_day: the partition.
        attempt: its id, the name of its folder.
        folder: the folder, as a path for Spark.
        rows: as the files state them.
        stored_bytes: of the ORC files.
        files: ORC files.
        unparsable: values that became null because they are not of their column's type, by column.
        mark: what it was made from, and its content.
    """

    table: Table
    export_day: date
    attempt: str
    folder: str
    rows: int
    stored_bytes: int
    files: int
    unparsable: Mapping[str, int]
    mark: Mapping[str, Any]


def store_attempt(
    published: Storage,
    written: WrittenRows,
    *,
    table: Table,
    export_day: date,
    attempt: str,
    folder: str,
    correlation_id: str,
    **made_from: str,
) -> Attempt:
    """Make the files of an attempt appear in its own folder, with a mark of what it was made from.

    Raises:
        CdiError: COUNTS_DO_NOT_RECONCILE where a stored file does not hold the rows that were written.
    """
    mark = {
        "table": table.name,
        "export_day": export_day.isoformat(),
        "rows": written.rows,
        "correlation_id": correlation_id,
        **made_from,
    }
    prefix = attempt_prefix(table, export_day, attempt)
    prepared = [file.prepared for file in written.files]
    published.publish(prefix, prepared, _as_text(mark), group=correlation_id)
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
        mark=mark,
    )


def publish_attempt(spark: SparkSession, published: Storage, attempt: Attempt) -> None:
    """Point the partition at the attempt, and delete what the attempt published before it had replaced.

    Several metastores may have tables over one published root, each with an attempt of its own in a partition. So only
    that attempt is deleted which this metastore is known to have replaced, and those that were never about to be
    published: what a killed run left. (A run that is still at work on one notices, see below.)

    Args:
        spark: the session.
        published: where the attempt is.
        attempt: written and counted.

    Raises:
        CdiError: DUPLICATE_RUN where the attempt's files vanished meanwhile. The partition is then unchanged.
    """
    table, export_day = attempt.table, attempt.export_day
    partition = export_day if table.is_partitioned else None
    before = published_folder(spark, table.name, partition)
    if before and same_place(before, attempt.folder):
        before = None  # a table without partitions that was created for this attempt
    previous = _attempt_in(before, attempt) if before else None
    replaced = _mark_of(published, table, export_day, previous).get("replaces") if previous else None
    description = _as_text({**attempt.mark, "replaces": previous})
    published.write(attempt_mark_key(table, export_day, attempt.attempt), description)
    if before is None and partition is not None:
        spark.sql(statements.add_partition(table.name, partition, attempt.folder))
    _point_at(spark, table.name, partition, attempt.folder)
    if len(_data_files(published, table, export_day, attempt.attempt)) != attempt.files:
        if before:
            _point_at(spark, table.name, partition, before)
        raise CdiError(
            FailureClass.DUPLICATE_RUN,
            f"{table.name} for {export_day} is being published by another run, which removed this attempt.",
            detail={"table": table.name, "attempt": attempt.attempt},
        )
    kept = {attempt.attempt, previous}
    _delete_attempts(published, table, export_day, {replaced} - kept if replaced else ())
    _delete_attempts(published, table, export_day, _unmarked(published, table, export_day) - kept, only_unmarked=True)


def delete_attempt(published: Storage, attempt: Attempt) -> None:
    """Delete an attempt that was written and is not to be published."""
    _delete_attempts(published, attempt.table, attempt.export_day, [attempt.attempt])


def _point_at(spark: SparkSession, table: str, partition: date | None, folder: str) -> None:
    spark.sql(statements.set_location(table, folder, partition))  # one change in the metastore: all or nothing
    spark.sql(f"REFRESH TABLE {identifier(table)}")


def _data_files(published: Storage, table: Table, export_day: date, attempt: str) -> list[StoredObject]:
    """Return an attempt's data files, without those that Spark and Hive skip (`_`, `.`)."""
    prefix = attempt_prefix(table, export_day, attempt)
    stored = published.list(prefix)
    return [found for found in stored if not found.key.removeprefix(prefix).startswith(("_", "."))]


def new_attempt_id(now: datetime) -> str:
    """Return an id that no other attempt has; `_ATTEMPT` is its form."""
    return f"{now:%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}"


def _attempt_in(folder: str, attempt: Attempt) -> str | None:
    """Return the id of the attempt that a location is, or None where it is none of this partition's."""
    parent, _, name = folder.rstrip("/").rpartition("/")
    return name if same_place(parent, attempt.folder.rpartition("/")[0]) else None


def _as_text(mark: Mapping[str, Any]) -> bytes:
    return json.dumps(mark, indent=2, sort_keys=True).encode()


def _mark_of(published: Storage, table: Table, export_day: date, attempt: str) -> dict[str, Any]:
    try:
        return dict(json.loads(published.read(attempt_mark_key(table, export_day, attempt))))
    except (ObjectMissingError, ValueError):
        return {}


def _unmarked(published: Storage, table: Table, export_day: date) -> set[str]:
    """Return the attempts that have no description: none was about to be published.

    An adopted table may have files and folders of others here, which are not ours to delete.
    """
    prefix = partition_prefix(table, export_day)
    keys = {stored.key for stored in published.list(prefix)}
    attempts = {key.removeprefix(prefix).partition("/")[0] for key in keys}
    return {
        attempt
        for attempt in attempts
        if _ATTEMPT.fullmatch(attempt) and attempt_mark_key(table, export_day, attempt) not in keys
    }


def _delete_attempts(
    published: Storage, table: Table, export_day: date, attempts: Iterable[str], *, only_unmarked: bool = False
) -> None:
    for attempt in attempts:
        prefix = attempt_prefix(table, export_day, attempt)
        try:
            keys = [stored.key for stored in published.list(prefix)]
            if only_unmarked and published.head(attempt_mark_key(table, export_day, attempt)):
                continue  # another run has published it since
            published.delete(keys)
        except StorageError as error:
            # No partition is at it; what stays costs its space, no more.
            _log.warning("The attempt %s stays: %s", published.uri(prefix), error)
