"""One Spark task of `publish_tables`: published parts of records in, prepared ORC files of the tables out, and counts.

Reads every record once for all tables. Runs in Spark's Python workers; the driver's side is `rows_job`. Nothing that
it makes is visible until the driver publishes it.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from cdi_dagster.core.table_definition import Column, Showing
from cdi_dagster.published.mark import PublishedPart
from cdi_dagster.spark.ingest.progress import ProgressAddress, ProgressSender
from cdi_dagster.spark.ingest.task import task_storage
from cdi_dagster.spark.tables.columns import ColumnReader
from cdi_dagster.spark.tables.orc_parts import OrcParts, WrittenFile
from cdi_dagster.spark.tables.record_blocks import record_blocks
from cdi_dagster.spark.tables.showing import shown_value
from cdi_dagster.spark.tables.values import spark_text
from cdi_dagster.storage import Storage


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
        columns: of the table; one without a path is the record exactly, and then the only one.
    """

    prefix: str
    columns: tuple[Column, ...]

    @property
    def is_raw(self) -> bool:
        """Whether it holds the records themselves."""
        return not self.columns[0].path


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


def run_rows_task(settings: RowsSettings, task: RowsTask) -> RowsResult:
    """Write the rows of the task's parts to every table."""
    storage = task_storage(settings.published_root)
    with ExitStack() as stack:
        progress = stack.enter_context(closing(ProgressSender(settings.progress, task.index)))
        columns = _different_columns(settings.outputs.values())
        reader = ColumnReader(columns)
        tables = {
            name: _Table(stack, storage, settings, output, task.index) for name, output in settings.outputs.items()
        }
        rows = text_bytes = bytes_done = 0
        for done, part in enumerate(task.parts):
            for text in record_blocks(storage, part):
                count = text.count(b"\n")
                values = dict(zip(map(_source, columns), reader.read(text, count), strict=True)) if columns else {}
                for table in tables.values():
                    table.write(text, count, values)
                rows += count
                text_bytes += len(text) - count
            bytes_done += part.size_bytes
            progress.done(objects=done + 1, compressed_bytes=bytes_done, last=done + 1 == len(task.parts))
        unparsable = {_source(column): reader.unparsable[column.name] for column in columns}
        return RowsResult(
            files={name: table.files.finish() for name, table in tables.items()},
            rows=rows,
            text_bytes=text_bytes,
            unparsable={
                name: {column.name: unparsable.get(_source(column), 0) for column in output.columns}
                for name, output in settings.outputs.items()
            },
            slow_records=reader.slow_records,
        )


_Source = tuple[tuple[str, ...], str]


def _source(column: Column) -> _Source:
    """Return what a column's values are made of: columns of several tables may share it."""
    return column.path, column.type


def _different_columns(outputs: Iterable[TableOutput]) -> list[Column]:
    """Return the columns to take from the records, each once, under names of their own."""
    sources = dict.fromkeys(_source(column) for output in outputs if not output.is_raw for column in output.columns)
    return [Column(name=f"c{i}", path=path, type=kind) for i, (path, kind) in enumerate(sources)]


class _Table:
    """One table being written."""

    def __init__(
        self, stack: ExitStack, storage: Storage, settings: RowsSettings, output: TableOutput, task_index: int
    ) -> None:
        self.files = OrcParts(
            storage,
            output.prefix,
            columns=[(column.name, column.shown_type) for column in output.columns],
            attempt=settings.attempt,
            group=settings.correlation_id,
            task_index=task_index,
            stride=settings.task_count,
        )
        stack.enter_context(self.files)
        self._output = output

    def write(self, text: bytes, count: int, values: Mapping[_Source, list[Any]]) -> None:
        if self._output.is_raw:
            self.files.write_texts(text, count)
        else:
            self.files.write([_shown(column, values[_source(column)]) for column in self._output.columns], count)


def _shown(column: Column, values: list[Any]) -> list[Any]:
    if column.showing is Showing.KEEP:
        return values
    if column.showing is Showing.HASH and column.type != "string":
        values = [None if value is None else spark_text(column.type, value) for value in values]
    return list(map(shown_value(column), values))
