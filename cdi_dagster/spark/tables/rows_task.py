"""One Spark task of `publish_tables`: published parts of records in, prepared ORC files of the tables out, and counts.

Reads every record once for all tables. Runs in Spark's Python workers; the driver's side is `rows_job`. Nothing that
it makes is visible until the driver publishes it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final

from cdi_dagster.published.mark import PublishedPart
from cdi_dagster.spark.ingest.gunzip import Gunzip
from cdi_dagster.spark.ingest.progress import ProgressAddress, ProgressSender
from cdi_dagster.spark.ingest.task import task_storage
from cdi_dagster.spark.tables.columns import ColumnReader
from cdi_dagster.spark.tables.definition import Column
from cdi_dagster.spark.tables.orc_parts import OrcParts, WrittenFile
from cdi_dagster.storage import Storage

BLOCK_BYTES: Final = 256 * 1024
"""Text of records that is parsed at once: what is made of it stays in the processor's cache."""


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
        columns: of the table; None for the one column `val`, the record exactly.
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


def run_rows_task(settings: RowsSettings, task: RowsTask) -> RowsResult:
    """Write the rows of the task's parts to every table."""
    storage = task_storage(settings.published_root)
    with ExitStack() as stack:
        progress = stack.enter_context(closing(ProgressSender(settings.progress, task.index)))
        tables = {}
        for name, output in settings.outputs.items():
            files = OrcParts(
                storage,
                output.prefix,
                columns=_types_of(output),
                attempt=settings.attempt,
                group=settings.correlation_id,
                task_index=task.index,
                stride=settings.task_count,
            )
            tables[name] = _Table(stack.enter_context(files), output)
        rows = text_bytes = bytes_done = 0
        for done, part in enumerate(task.parts):
            for text in _blocks(storage, part):
                count = text.count(b"\n")
                for table in tables.values():
                    table.write(text, count)
                rows += count
                text_bytes += len(text) - count
            bytes_done += part.size_bytes
            progress.done(objects=done + 1, compressed_bytes=bytes_done, last=done + 1 == len(task.parts))
        return RowsResult(
            files={name: table.files.finish() for name, table in tables.items()},
            rows=rows,
            text_bytes=text_bytes,
            unparsable={name: table.unparsable for name, table in tables.items()},
            slow_records=max((table.slow_records for table in tables.values()), default=0),
        )


class _Table:
    """One table being written."""

    def __init__(self, files: OrcParts, output: TableOutput) -> None:
        self.files = files
        self._reader = None if output.columns is None else ColumnReader(output.columns)

    def write(self, text: bytes, count: int) -> None:
        if self._reader is None:
            self.files.write_texts(text, count)
        else:
            self.files.write(self._reader.read(text, count), count)

    @property
    def unparsable(self) -> dict[str, int]:
        return dict(self._reader.unparsable) if self._reader else {}

    @property
    def slow_records(self) -> int:
        return self._reader.slow_records if self._reader else 0


def _types_of(output: TableOutput) -> Sequence[tuple[str, str]]:
    if output.columns is None:
        return [("val", "string")]
    return [(column.name, column.type) for column in output.columns]


def _blocks(storage: Storage, part: PublishedPart) -> Iterator[bytes]:
    """Yield the text of a part in blocks of whole lines, of some 256 kB unless a record is longer."""
    with closing(storage.open(part.key)) as stream:
        pending: list[bytes] = []
        for chunk in Gunzip(stream, part.key).chunks():
            if chunk is None:
                continue
            end = chunk.rfind(b"\n") + 1
            if not end:
                pending.append(chunk)
                continue
            yield b"".join([*pending, chunk[:end]])
            pending = [chunk[end:]]
        rest = b"".join(pending)
        if rest:
            yield rest + b"\n"
