"""Writes one ORC file: stripe after stripe, in bounded memory, and its tail; and reads a tail back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zlib import decompress

from cdi_dagster.spark.tables.orc.encodings import CHUNK_BYTES, OrcColumn, compressed
from cdi_dagster.spark.tables.orc.messages import bytes_field, number_field, packed_field, read_fields

MAGIC: Final = b"ORC"
_ZLIB: Final = 1
_STRUCT: Final = 12
_VERSION: Final = (0, 12)
_WRITER_VERSION: Final = 6
"""ORC-135: statistics of timestamps are in UTC. Readers trust statistics by this number."""


@dataclass(frozen=True, kw_only=True)
class _Stripe:
    offset: int
    data_bytes: int
    footer_bytes: int
    rows: int
    statistics: tuple[bytes, ...]


class OrcWriter:
    """Writes rows to an ORC file.

    Without row indexes: readers skip whole stripes by their statistics, never parts of one.

    Args:
        sink: takes the bytes of the file.
        names: of the columns.
        types: of the columns.

    Attributes:
        rows: written so far.
        stored_bytes: of the file so far, the open stripe not counted.
    """

    def __init__(self, sink: Callable[[bytes], Any], names: Sequence[str], types: Sequence[type[OrcColumn]]) -> None:
        self.rows = 0
        self.stored_bytes = 0
        self._sink = sink
        self._names = names
        self._types = types
        self._stripes: list[_Stripe] = []
        self._totals = self._new_columns()
        self._store(MAGIC)
        self.columns = self._new_columns()

    def _new_columns(self) -> list[OrcColumn]:
        return [kind() for kind in self._types]

    @property
    def stripe_bytes(self) -> int:
        """Compressed bytes of the open stripe so far."""
        return sum(column.stored_bytes for column in self.columns)

    def write(self, values: Sequence[Sequence[Any]]) -> None:
        """Append rows, as the values of each column."""
        for column, of_column in zip(self.columns, values, strict=True):
            column.write(of_column)

    def end_stripe(self) -> None:
        """Write the open stripe, if it has rows."""
        rows = self.columns[0].rows
        if not rows:
            return
        offset = self.stored_bytes
        streams = []
        for number, column in enumerate(self.columns, start=1):
            for kind, chunks in column.streams():
                length = sum(map(len, chunks))
                streams.append(
                    bytes_field(1, number_field(1, kind) + number_field(2, number) + number_field(3, length))
                )
                for chunk in chunks:
                    self._store(chunk)
        data_bytes = self.stored_bytes - offset
        direct = bytes_field(2, number_field(1, 0)) * (len(self.columns) + 1)
        footer = _compressed_message(b"".join(streams) + direct + bytes_field(3, b"UTC"))
        self._store(footer)
        for total, column in zip(self._totals, self.columns, strict=True):
            total.absorb(column)
        self._stripes.append(
            _Stripe(
                offset=offset,
                data_bytes=data_bytes,
                footer_bytes=len(footer),
                rows=rows,
                statistics=_statistics(rows, self.columns),
            )
        )
        self.rows += rows
        self.columns = self._new_columns()

    def finish(self) -> None:
        """Write the open stripe and the tail."""
        self.end_stripe()
        metadata = _compressed_message(
            b"".join(
                bytes_field(1, b"".join(bytes_field(1, statistics) for statistics in stripe.statistics))
                for stripe in self._stripes
            )
        )
        footer = _compressed_message(self._footer())
        script = b"".join(
            (
                number_field(1, len(footer)),
                number_field(2, _ZLIB),
                number_field(3, CHUNK_BYTES),
                packed_field(4, _VERSION),
                number_field(5, len(metadata)),
                number_field(6, _WRITER_VERSION),
                bytes_field(8000, MAGIC),
            )
        )
        self._store(metadata + footer + script + bytes((len(script),)))

    def _footer(self) -> bytes:
        stripes = b"".join(
            bytes_field(
                3,
                number_field(1, stripe.offset)
                + number_field(2, 0)
                + number_field(3, stripe.data_bytes)
                + number_field(4, stripe.footer_bytes)
                + number_field(5, stripe.rows),
            )
            for stripe in self._stripes
        )
        root = number_field(1, _STRUCT) + packed_field(2, range(1, len(self._types) + 1))
        root += b"".join(bytes_field(3, name.encode()) for name in self._names)
        types = b"".join(bytes_field(4, message) for message in (root, *(kind.type_message for kind in self._types)))
        content_bytes = self.stored_bytes - len(MAGIC)
        return (
            number_field(1, len(MAGIC))
            + number_field(2, content_bytes)
            + stripes
            + types
            + number_field(6, self.rows)
            + b"".join(bytes_field(7, statistics) for statistics in _statistics(self.rows, self._totals))
            + number_field(8, 0)  # no row indexes
        )

    def _store(self, data: bytes) -> None:
        self._sink(data)
        self.stored_bytes += len(data)


def _statistics(rows: int, columns: Sequence[OrcColumn]) -> tuple[bytes, ...]:
    """Return the statistics of the rows themselves and of each column."""
    return (number_field(1, rows) + number_field(10, 0), *(column.statistics() for column in columns))


def _compressed_message(message: bytes) -> bytes:
    """Return a protocol buffer as a compressed stream."""
    return b"".join(compressed(message[start : start + CHUNK_BYTES]) for start in range(0, len(message), CHUNK_BYTES))


def rows_of_tail(tail: bytes) -> int:
    """Return the rows that the last bytes of an ORC file state, written by `OrcWriter`.

    Raises:
        ValueError: they are no whole tail.
    """
    (rows,) = read_fields(footer_of_tail(tail))[6]
    assert isinstance(rows, int)  # noqa: S101 - the field is a number
    return rows


def footer_of_tail(tail: bytes) -> bytes:
    """Return the footer in the last bytes of an ORC file.

    Raises:
        ValueError: they are no whole tail.
    """
    script = read_fields(tail[-1 - tail[-1] : -1])
    if script.get(8000) != [MAGIC]:
        raise ValueError("not the end of an ORC file")
    (footer_bytes,) = script[1]
    end = len(tail) - 1 - tail[-1]
    if not isinstance(footer_bytes, int) or footer_bytes > end:
        raise ValueError("not the whole tail")
    return inflated(tail[end - footer_bytes : end])


def inflated(stream: bytes) -> bytes:
    """Return the content of a compressed stream."""
    out = []
    position = 0
    while position < len(stream):
        header = int.from_bytes(stream[position : position + 3], "little")
        position += 3
        chunk = stream[position : position + (header >> 1)]
        position += header >> 1
        out.append(chunk if header & 1 else decompress(chunk, -15))
    return b"".join(out)
