"""One Spark task of `publish_tables`: published parts of records in, prepared ORC files of the tables out, and counts.

Reads every record once for all tables. Runs in Spark's Python workers; the driver's side is `rows_job`. Nothing that
it makes is visible until the driver publishes it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

from cdi_dagster.core.table_definition import Column, Showing
from cdi_dagster.published.mark import PublishedPart
from cdi_dagster.spark.ingest.progress import ProgressAddress, ProgressSender
from cdi_dagster.spark.ingest.task import task_storage
from cdi_dagster.spark.tables.columns import ColumnReader
from cdi_dagster.spark.tables.orc_parts import OrcParts, WrittenFile
from cdi_dagster.spark.tables.record_blocks import record_blocks
from cdi_dagster.spark.tables.showing import shown_value
from cdi_dagster.storage import Storage

_BLOCK_CHARACTERS = 256 * 1024
"""As `record_blocks` makes them: larger ones leave the cache."""


@dataclass(frozen=True, kw_only=True)
class RowsTask:
    """What one Spark task reads.

    Attributes:
        index: number of the task; file names begin with it.
        parts: of the published records, in order.
    """

    index: int
    parts: tuple[PublishedPart, ...]


@dataclass(frozen=True, kw_only=True)
class TableOutput:
    """One table to write.

    Attributes:
        prefix: of its files, ending in `/`.
        columns: of the table, as it shows them; None for the one column `val`, the record exactly.
    """

    prefix: str
    columns: tuple[Column, ...] | None


@dataclass(frozen=True, kw_only=True)
class RowsSettings:
    """What all tasks of a job share.

    Attributes:
        published_root: where records are and tables go.
        outputs: by table.
        attempt: ends every file's name.
        correlation_id: of the run; the group of its uploads.
        task_count: how many tasks there are.
        progress: where to send how far the task is.
    """

    published_root: str
    outputs: Mapping[str, TableOutput]
    attempt: str
    correlation_id: str
    task_count: int
    progress: ProgressAddress | None


@dataclass(frozen=True, kw_only=True)
class RowsResult:
    """What one task made and counted.

    Attributes:
        files: by table.
        rows: records read, which are the rows of each table.
        text_bytes: of the records, newlines not counted.
        unparsable: by table and column, values that are null because they are not of the column's type.
        slow_records: records whose values were taken from their text.
    """

    files: Mapping[str, tuple[WrittenFile, ...]]
    rows: int
    text_bytes: int
    unparsable: Mapping[str, Mapping[str, int]]
    slow_records: int


def run_rows_task(settings: RowsSettings, task: RowsTask) -> Iterator[RowsResult]:
    """Write the rows of the task's parts to every table."""
    storage = task_storage(settings.published_root)
    with closing(ProgressSender(settings.progress, task.index)) as progress:
        yield _write_blocks(settings, task.index, storage, _blocks_of(storage, task.parts, progress))


def run_snapshot_rows(settings: RowsSettings, index: int, rows: Iterable[tuple[str | None]]) -> Iterator[RowsResult]:
    """Write the rows of one partition of a snapshot's DataFrame, whose only column is `val`, to every table."""
    storage = task_storage(settings.published_root)
    yield _write_blocks(settings, index, storage, _blocks_of_rows(rows))


def _blocks_of(storage: Storage, parts: Sequence[PublishedPart], progress: ProgressSender) -> Iterator[bytes]:
    bytes_done = 0
    for done, part in enumerate(parts):
        yield from record_blocks(storage, part)
        bytes_done += part.size_bytes
        progress.done(objects=done + 1, compressed_bytes=bytes_done, last=done + 1 == len(parts))


def _blocks_of_rows(rows: Iterable[tuple[str | None]]) -> Iterator[bytes]:
    lines: list[str] = []
    size = 0
    for (val,) in rows:
        lines.append(val or "{}")  # the old system's: a row stays a row
        size += len(lines[-1])
        if size >= _BLOCK_CHARACTERS:
            yield ("\n".join(lines) + "\n").encode()
            lines, size = [], 0
    if lines:
        yield ("\n".join(lines) + "\n").encode()


def _write_blocks(settings: RowsSettings, index: int, storage: Storage, blocks: Iterable[bytes]) -> RowsResult:
    with ExitStack() as stack:
        columns = _taken(settings.outputs.values())
        reader = ColumnReader(columns)
        tables = {}
        for name, output in settings.outputs.items():
            files = OrcParts(
                storage,
                output.prefix,
                columns=_types_of(output),
                attempt=settings.attempt,
                group=settings.correlation_id,
                task_index=index,
                stride=settings.task_count,
            )
            tables[name] = _Table(stack.enter_context(files), output)
        rows = text_bytes = 0
        for text in blocks:
            count = text.count(b"\n")
            values = {}
            if columns:
                read = reader.read(text, count)
                values = {column.name: read[number] for number, column in enumerate(columns)}
            for table in tables.values():
                table.write(text, values, count)
            rows += count
            text_bytes += len(text) - count
        return RowsResult(
            files={name: table.files.finish() for name, table in tables.items()},
            rows=rows,
            text_bytes=text_bytes,
            unparsable={name: table.unparsable(reader) for name, table in tables.items()},
            slow_records=reader.slow_records,
        )


class _Table:
    """One table being written."""

    def __init__(self, files: OrcParts, output: TableOutput) -> None:
        self.files = files
        self._columns = output.columns
        self._shown = [
            (column.name, None if column.showing is Showing.KEEP else shown_value(column))
            for column in output.columns or ()
        ]

    def write(self, text: bytes, values: Mapping[str, list[Any]], count: int) -> None:
        """Write a block: its text, or what the table shows of the values of the managed table's columns."""
        if self._columns is None:
            self.files.write_texts(text, count)
            return
        self.files.write(
            [values[name] if show is None else list(map(show, values[name])) for name, show in self._shown], count
        )

    def unparsable(self, reader: ColumnReader) -> dict[str, int]:
        return {name: reader.unparsable[name] for name, _ in self._shown if reader.unparsable[name]}


def _taken(outputs: Iterable[TableOutput]) -> list[Column]:
    """Return each column that a table shows something of, once, as the managed table has it."""
    columns = {column.name: column for output in outputs for column in output.columns or ()}
    return [replace(column, showing=Showing.KEEP) for column in columns.values()]


def _types_of(output: TableOutput) -> Sequence[tuple[str, str]]:
    if output.columns is None:
        return [("val", "string")]
    return [(column.name, column.shown_type) for column in output.columns]
