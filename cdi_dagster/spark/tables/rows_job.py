"""Writes the rows of all tables on Spark's workers, and checks them: the driver's half of `rows_task`."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Final

from pyspark import SparkContext
from pyspark.sql import SparkSession

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.published.mark import Mark, PublishedPart
from cdi_dagster.published.snapshot_mark import SnapshotMark
from cdi_dagster.spark.ingest.planning import packed
from cdi_dagster.spark.ingest.task_runner import planned_cores, progress_board, run_on_spark
from cdi_dagster.spark.reporting import Reporter
from cdi_dagster.spark.snapshot.rows import base_rows
from cdi_dagster.spark.tables.orc.writer import rows_of_tail
from cdi_dagster.spark.tables.orc_parts import WrittenFile
from cdi_dagster.spark.tables.rows_task import (
    RowsResult,
    RowsSettings,
    RowsTask,
    TableOutput,
    run_rows_task,
    run_snapshot_rows,
)
from cdi_dagster.storage import Storage

TASKS_PER_CORE: Final = 3
LEAST_TASK_BYTES: Final = 64 * 1024 * 1024
"""Of a large day: its files are not smaller, so that a day does not become thousands of them."""

LEAST_SMALL_TASK_BYTES: Final = 4 * 1024 * 1024
"""Of a day that is too small to keep every core at work with larger ones: below, starting a task takes longer."""

_MOST_SMALL_TASKS: Final = 32
_TAIL_BYTES: Final = 1024 * 1024
"""More than the tail of a file of 256 MB, with hundreds of columns."""


@dataclass(frozen=True, kw_only=True)
class WrittenRows:
    """What the tasks made of one table.

    Attributes:
        files: in order of their keys; not visible yet.
        rows: in them.
        unparsable: values that are null because they are not of their column's type, by column.
        slow_records: records whose values were taken from their text.
    """

    files: tuple[WrittenFile, ...]
    rows: int
    unparsable: Mapping[str, int]
    slow_records: int


def plan_rows(parts: Sequence[PublishedPart], *, cores: int) -> list[RowsTask]:
    """Pack the parts into tasks of about equal bytes. Pure; a part is never divided."""
    total = sum(part.size_bytes for part in parts)
    large = min(cores * TASKS_PER_CORE, total // LEAST_TASK_BYTES)
    small = min(cores, math.ceil(total / LEAST_SMALL_TASK_BYTES), _MOST_SMALL_TASKS)
    bins = packed([part.size_bytes for part in parts], max(large, small, 1))
    return [
        RowsTask(index=index, parts=tuple(parts[position] for position in positions))
        for index, positions in enumerate(bins)
    ]


def write_rows(
    spark: SparkContext,
    records: Mark,
    outputs: Mapping[str, TableOutput],
    *,
    published: Storage,
    attempt: str,
    export_day: date,
    correlation_id: str,
    reporter: Reporter,
) -> dict[str, WrittenRows]:
    """Write the rows of the marked records to every table, in one pass.

    Args:
        spark: runs the tasks.
        records: mark of the records.
        outputs: the tables, by name.
        published: where both are.
        attempt: id of this attempt.
        export_day: for messages.
        correlation_id: of the run.
        reporter: gets the progress.

    Raises:
        CdiError: COUNTS_DO_NOT_RECONCILE where the rows are not the marked records; a task's failure.
    """
    tasks = plan_rows(records.parts, cores=planned_cores(spark))
    results: list[RowsResult] = []
    if tasks:
        with progress_board(spark, objects=len(records.parts), input_bytes=records.published_bytes) as board:
            settings = RowsSettings(
                published_root=published.root,
                outputs=outputs,
                attempt=attempt,
                correlation_id=correlation_id,
                task_count=len(tasks),
                progress=board.address,
            )
            results = run_on_spark(
                spark,
                partial(run_rows_task, settings),
                tasks,
                group=f"publish_tables {correlation_id} {attempt}",
                description=f"rows of {records.collection_id}",
                board=board,
                reporter=reporter,
            )
    written = {name: _combined(name, results) for name in outputs}
    for name, of_table in written.items():
        text_bytes = sum(result.text_bytes for result in results)
        if (of_table.rows, text_bytes) != (records.published, records.text_bytes):
            raise _do_not_reconcile(name, export_day, of_table.rows, text_bytes, records)
    return written


def write_snapshot_rows(
    spark: SparkSession,
    snapshot: SnapshotMark,
    output: TableOutput,
    *,
    table: str,
    published: Storage,
    attempt: str,
    correlation_id: str,
) -> WrittenRows:
    """Write the rows of a snapshot to one of its tables: Spark reads `val`, our workers parse and write it.

    Args:
        spark: runs the tasks.
        snapshot: mark of the snapshot, whose files are there.
        output: the table.
        table: its name.
        published: where both are.
        attempt: id of this attempt.
        correlation_id: of the run.

    Raises:
        CdiError: COUNTS_DO_NOT_RECONCILE where the rows are not those of the mark; an adopted one states none.
    """
    results: list[RowsResult] = []
    if snapshot.parts:
        prefix, keys = snapshot.parts[0].key.partition("id_part=")[0], [part.key for part in snapshot.parts]
        values = base_rows(spark, published, prefix, keys).select("val").rdd
        settings = RowsSettings(
            published_root=published.root,
            outputs={table: output},
            attempt=attempt,
            correlation_id=correlation_id,
            task_count=values.getNumPartitions(),
            progress=None,
        )
        results = values.mapPartitionsWithIndex(partial(run_snapshot_rows, settings)).collect()
    written = _combined(table, results)
    if snapshot.made_from is not None and written.rows != snapshot.published:
        raise CdiError(
            FailureClass.COUNTS_DO_NOT_RECONCILE,
            f"{table} would hold {written.rows} rows, but the snapshot of {snapshot.export_day} has "
            f"{snapshot.published}. The table is unchanged.",
            next_step="Make the snapshot again, then its tables; if it happens again, report a defect.",
            detail={"table": table, "rows": written.rows, "expected_rows": snapshot.published},
        )
    return written


def require_stored(published: Storage, files: Sequence[WrittenFile]) -> None:
    """Check that the tail of every file, as it is stored, states the rows that were written.

    Raises:
        CdiError: COUNTS_DO_NOT_RECONCILE, naming the file.
    """
    for file in files:
        key, size = file.prepared.key, file.prepared.size_bytes
        with published.open(key, first_byte=max(0, size - _TAIL_BYTES)) as stream:
            tail = stream.read()
        try:
            rows: int | None = rows_of_tail(tail)
        except (ValueError, KeyError, IndexError):
            rows = None
        if rows != file.rows:
            raise CdiError(
                FailureClass.COUNTS_DO_NOT_RECONCILE,
                f"{published.uri(key)} states {rows} rows, but {file.rows} were written. The partition is unchanged.",
                next_step="Publish the tables again; if it happens again, report a defect.",
                detail={"key": key},
            )


def _combined(name: str, results: Sequence[RowsResult]) -> WrittenRows:
    unparsable: Counter[str] = Counter()
    for result in results:
        unparsable.update(result.unparsable[name])
    files = [file for result in results for file in result.files[name]]
    return WrittenRows(
        files=tuple(sorted(files, key=lambda file: file.prepared.key)),
        rows=sum(file.rows for file in files),
        unparsable={column: count for column, count in unparsable.items() if count},
        slow_records=sum(result.slow_records for result in results),
    )


def _do_not_reconcile(table: str, export_day: date, rows: int, text_bytes: int, records: Mark) -> CdiError:
    return CdiError(
        FailureClass.COUNTS_DO_NOT_RECONCILE,
        f"{table} for {export_day} would hold {rows} rows of {text_bytes} bytes of records, but the daily records are "
        f"{records.published} of {records.text_bytes} bytes. The partition is unchanged.",
        next_step="Run the day again, then its tables; if it happens again, report a defect.",
        detail={"table": table, "rows": rows, "expected_rows": records.published},
    )
