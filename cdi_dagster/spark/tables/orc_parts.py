"""Writes the rows of one task and one table to as many ORC files as they need, prepared but not yet visible.

The only module that knows both tables and the ORC format.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cdi_dagster.spark.numbered_parts import NumberedParts, OpenFile
from cdi_dagster.spark.tables.orc import encodings
from cdi_dagster.spark.tables.orc.writer import OrcWriter
from cdi_dagster.storage import PreparedObject, Storage, Upload

STRIPE_BYTES: Final = 16 * 1024 * 1024
"""Compressed: what one task keeps of a table in memory, some 100 MB of text. A stripe is what a reader can skip."""

STRIPE_ROWS: Final = 500_000
MOST_FILE_BYTES: Final = 256 * 1024 * 1024

_TYPES: Final[dict[str, type[encodings.OrcColumn]]] = {
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


class OrcParts(NumberedParts["_OpenOrcFile", WrittenFile]):
    """Writes the rows of one task to a table: `NumberedParts` of these columns, by name and type."""

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
        ending = f"{attempt}.zlib.orc"
        super().__init__(storage, prefix, ending=ending, group=group, task_index=task_index, stride=stride)
        self._names = [name for name, _ in columns]
        self._types = [column_type(kind) for _, kind in columns]

    def write(self, values: Sequence[Sequence[Any]], count: int) -> None:
        """Append rows, as the typed values of each column."""
        if count:
            writer = self._open_file().writer
            writer.write(values)
            self._end_what_is_full(writer)

    def write_texts(self, text: bytes, count: int) -> None:
        """Append lines, each ended by a newline, as the rows of a table with one column of strings."""
        if count:
            lengths = list(map(len, text.split(b"\n")))
            lengths.pop()  # after the last newline
            writer = self._open_file().writer
            (column,) = writer.columns
            assert isinstance(column, encodings.StringColumn)  # noqa: S101 - the caller's table has one
            column.write_text(text.replace(b"\n", b""), lengths)
            self._end_what_is_full(writer)

    def _new_file(self, upload: Upload) -> "_OpenOrcFile":
        return _OpenOrcFile(upload, self._names, self._types)

    def _end_what_is_full(self, writer: OrcWriter) -> None:
        if writer.stripe_bytes >= STRIPE_BYTES or writer.columns[0].rows >= STRIPE_ROWS:
            writer.end_stripe()
            if writer.stored_bytes >= MOST_FILE_BYTES - STRIPE_BYTES:
                self._close_file()


class _OpenOrcFile(OpenFile[WrittenFile]):
    """One file being written."""

    def __init__(self, upload: Upload, names: Sequence[str], types: Sequence[type[encodings.OrcColumn]]) -> None:
        super().__init__(upload)
        self.writer = OrcWriter(self._upload.write, names, types)

    def _prepared(self) -> WrittenFile:
        self.writer.finish()
        return WrittenFile(prepared=self._upload.prepare(), rows=self.writer.rows)


def column_type(kind: str) -> type[encodings.OrcColumn]:
    """Return the ORC column of a Hive type."""
    if match := _DECIMAL.fullmatch(kind):
        return encodings.decimal_column(int(match[1]), int(match[2]))
    return _TYPES[kind]
