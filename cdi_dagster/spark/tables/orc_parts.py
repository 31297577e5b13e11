"""Writes the rows of one task and one table to as many ORC files as they need, prepared but not yet visible.

The only module that knows both tables and the ORC format.
"""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from cdi_dagster.spark.tables.orc import encodings
from cdi_dagster.spark.tables.orc.writer import OrcWriter
from cdi_dagster.storage import PreparedObject, Storage, Upload

STRIPE_BYTES: Final = 16 * 1024 * 1024
"""Compressed: what one task keeps of a table in memory, some 100 MB of text. A stripe is what a reader can skip."""

STRIPE_ROWS: Final = 500_000
MOST_FILE_BYTES: Final = 256 * 1024 * 1024

_TYPES: Final[dict[str, type[encodings.Column]]] = {
    "string": encodings.StringColumn,
    "boolean": encodings.BooleanColumn,
    "int": encodings.IntColumn,
    "bigint": encodings.LongColumn,
    "double": encodings.DoubleColumn,
    "date": encodings.DateColumn,
    "timestamp": encodings.TimestampColumn,
}
_DECIMAL: Final = re.compile(r"decimal\((\d+),(\d+)\)")


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """One ORC file, stored durably but not visible yet.

    Attributes:
        prepared: what publishes it.
        rows: in it.
    """

    prepared: PreparedObject
    rows: int


class OrcParts:
    """Writes the rows of one task to a table; no file for no rows.

    The files are numbered `task_index`, `task_index + stride`, ...: unique over all tasks without coordination.

    Args:
        storage: where to.
        prefix: of the files, ending in `/`.
        columns: name and type of each.
        attempt: ends every file's name.
        group: upload group: the correlation id.
        task_index: number of this task.
        stride: how many tasks there are.
    """

    def __init__(
        self,
        storage: Storage,
        prefix: str,
        *,
        columns: Sequence[tuple[str, str]],
        attempt: str,
        group: str,
        task_index: int,
        stride: int,
    ) -> None:
        self._storage = storage
        self._prefix = prefix
        self._names = [name for name, _ in columns]
        self._types = [column_type(kind) for _, kind in columns]
        self._attempt = attempt
        self._group = group
        self._number = task_index
        self._stride = stride
        self._file: _OpenFile | None = None
        self._written: list[WrittenFile] = []

    def write(self, values: Sequence[Sequence[Any]], count: int) -> None:
        """Append rows, as the typed values of each column."""
        if count:
            self._open().writer.write(values)
            self._end_what_is_full()

    def write_texts(self, text: bytes, count: int) -> None:
        """Append lines, each ended by a newline, as the rows of a table with one column of strings."""
        if count:
            lengths = list(map(len, text.split(b"\n")))
            lengths.pop()  # after the last newline
            (column,) = self._open().writer.columns
            assert isinstance(column, encodings.StringColumn)  # noqa: S101 - the caller's table has one
            column.write_text(text.replace(b"\n", b""), lengths)
            self._end_what_is_full()

    def finish(self) -> tuple[WrittenFile, ...]:
        """Make every file durable and return what publishes them."""
        self._close()
        return tuple(self._written)

    def _open(self) -> "_OpenFile":
        if self._file is None:
            key = f"{self._prefix}part-{self._number:05d}-{self._attempt}.zlib.orc"
            self._file = _OpenFile(self._storage.upload(key, group=self._group), self._names, self._types)
            self._number += self._stride
        return self._file

    def _end_what_is_full(self) -> None:
        if self._file is None:
            return
        writer = self._file.writer
        if writer.stripe_bytes >= STRIPE_BYTES or writer.columns[0].rows >= STRIPE_ROWS:
            writer.end_stripe()
            if writer.stored_bytes >= MOST_FILE_BYTES - STRIPE_BYTES:
                self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._written.append(self._file.prepare())
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.abort()


class _OpenFile:
    """One file being written."""

    def __init__(self, upload: Upload, names: Sequence[str], types: Sequence[type[encodings.Column]]) -> None:
        self._stack = ExitStack()
        self._upload = self._stack.enter_context(upload)
        self.writer = OrcWriter(self._upload.write, names, types)

    def prepare(self) -> WrittenFile:
        with self._stack:
            self.writer.finish()
            return WrittenFile(prepared=self._upload.prepare(), rows=self.writer.rows)

    def abort(self) -> None:
        with self._stack:
            self._upload.abort()


def column_type(kind: str) -> type[encodings.Column]:
    """Return the ORC column of a Hive type."""
    if match := _DECIMAL.fullmatch(kind):
        return encodings.decimal_column(int(match[1]), int(match[2]))
    return _TYPES[kind]
