"""The streams of an ORC column: from values to bytes, by type.

Run-length encoding version 1 throughout (`DIRECT`): every reader knows it, and deflate finds what version 2 would. A
column keeps its streams, compressed but for the last piece, until its stripe ends.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final, Self

from isal import isal_zlib

from cdi_dagster.spark.tables.orc.hybrid_calendar import hybrid_days, hybrid_micros
from cdi_dagster.spark.tables.orc.messages import bytes_field, number_field, packed_field, varint, zigzag

CHUNK_BYTES: Final = 256 * 1024
"""Uncompressed bytes of a compression chunk: the unit in which readers inflate, and ORC's default."""

PRESENT, DATA, LENGTH, SECONDARY = 0, 1, 2, 5
"""Kinds of streams."""

_COMPRESSION_LEVEL: Final = 1
_RAW_DEFLATE: Final = -15
_GROUP: Final = 128
"""Most values of one run or group of literals."""

_TIMESTAMP_BASE: Final = 1_420_070_400
"""2015-01-01: ORC counts seconds from there, in the writer's time zone, which is UTC here."""

_MICROS: Final = 1_000_000
_VARINTS: Final = tuple(varint(number) for number in range(1 << 14))
_CONTINUED: Final = tuple(bytes((number & 0x7F | 0x80, number >> 7 | 0x80)) for number in range(1 << 14))
"""The lowest 14 bits of a number that has more."""


def compressed(data: bytes | bytearray | memoryview) -> bytes:
    """Return one chunk of a compressed stream, deflated where that makes it smaller."""
    deflated = isal_zlib.compress(data, _COMPRESSION_LEVEL, wbits=_RAW_DEFLATE)
    if len(deflated) < len(data):
        return (len(deflated) << 1).to_bytes(3, "little") + deflated
    return (len(data) << 1 | 1).to_bytes(3, "little") + data


class _Stream:
    """Bytes of one stream of one column within a stripe."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._chunks: list[bytes] = []
        self.stored_bytes = 0

    def write(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) >= CHUNK_BYTES:
            whole = len(self._pending) // CHUNK_BYTES * CHUNK_BYTES
            with memoryview(self._pending) as view:
                for start in range(0, whole, CHUNK_BYTES):
                    self._store(view[start : start + CHUNK_BYTES])
            del self._pending[:whole]

    def _store(self, data: bytes | bytearray | memoryview) -> None:
        chunk = compressed(data)
        self._chunks.append(chunk)
        self.stored_bytes += len(chunk)

    def finish(self) -> list[bytes]:
        if self._pending:
            self._store(self._pending)
        return self._chunks


class _Bits:
    """A stream of booleans, packed at the end: groups of eight run over the ends of blocks."""

    def __init__(self) -> None:
        self._digits = bytearray()  # b"0" and b"1"

    def write(self, digits: bytes) -> None:
        self._digits += digits

    def finish(self) -> list[bytes]:
        count = -(-len(self._digits) // 8)
        bits = int(self._digits.ljust(count * 8, b"0"), 2).to_bytes(count, "big") if count else b""
        stream = _Stream()
        stream.write(_byte_runs(bits))
        return stream.finish()


class OrcColumn:
    """A column of one stripe. Subclasses know a type; `None` is null in all of them.

    Attributes:
        type_message: protocol buffer of the type.
        rows: written, nulls included.
        nulls: of them.
    """

    type_message: bytes = b""

    def __init__(self) -> None:
        self.rows = self.nulls = 0
        self._present = _Bits()
        self._data = _Stream()

    def write(self, values: Sequence[Any]) -> None:
        """Append values."""
        nulls = values.count(None)
        if nulls:
            self._present.write(bytes([48 if value is None else 49 for value in values]))
            kept: Sequence[Any] = [value for value in values if value is not None]
        else:
            self._present.write(b"1" * len(values))
            kept = values
        self.rows += len(values)
        self.nulls += nulls
        if kept:
            self._write(kept)

    def streams(self) -> list[tuple[int, list[bytes]]]:
        """Return the kind and the compressed chunks of each stream; the column is at its end then."""
        present = [(PRESENT, self._present.finish())] if self.nulls else []
        return present + self._streams()

    @property
    def stored_bytes(self) -> int:
        """Compressed so far."""
        return self._data.stored_bytes

    def absorb(self, other: Self) -> None:
        """Add the statistics of another stripe's column."""
        self.rows += other.rows
        self.nulls += other.nulls

    def statistics(self) -> bytes:
        """Return the protocol buffer of the statistics."""
        return number_field(1, self.rows - self.nulls) + self._statistics() + number_field(10, int(self.nulls > 0))

    def _write(self, values: Sequence[Any]) -> None:
        raise NotImplementedError

    def _streams(self) -> list[tuple[int, list[bytes]]]:
        return [(DATA, self._data.finish())]

    def _statistics(self) -> bytes:
        return b""


class StringColumn(OrcColumn):
    """Texts; `write_text` takes UTF-8 that is already joined."""

    type_message = number_field(1, 7)

    def __init__(self) -> None:
        super().__init__()
        self._lengths = _Stream()
        self._text_bytes = 0

    def _write(self, values: Sequence[str]) -> None:
        joined = "".join(values)
        if joined.isascii():
            self._write_joined(joined.encode(), list(map(len, values)))
        else:
            # All at once is twice as fast as one by one, where no text holds the separator.
            encoded = "\n".join(values).encode().split(b"\n")
            if len(encoded) != len(values):
                encoded = [value.encode() for value in values]
            self._write_joined(b"".join(encoded), list(map(len, encoded)))

    def write_text(self, text: bytes, lengths: list[int]) -> None:
        """Append texts, none of them null: all of them joined, and the bytes of each."""
        self._present.write(b"1" * len(lengths))
        self.rows += len(lengths)
        self._write_joined(text, lengths)

    def _write_joined(self, text: bytes, lengths: list[int]) -> None:
        self._text_bytes += len(text)
        self._data.write(text)
        self._lengths.write(_unsigned_runs(lengths))

    def _streams(self) -> list[tuple[int, list[bytes]]]:
        return [(DATA, self._data.finish()), (LENGTH, self._lengths.finish())]

    def absorb(self, other: Self) -> None:
        """Add the statistics of another stripe's column."""
        super().absorb(other)
        self._text_bytes += other._text_bytes

    def _statistics(self) -> bytes:
        return bytes_field(4, number_field(3, zigzag(self._text_bytes)))


class _RangedColumn(OrcColumn):
    """A column whose statistics have the least and the largest value."""

    def __init__(self) -> None:
        super().__init__()
        self._least: Any = None
        self._largest: Any = None

    def absorb(self, other: Self) -> None:
        """Add the statistics of another stripe's column."""
        super().absorb(other)
        if other._least is not None:
            self._widen((other._least, other._largest))

    def _widen(self, values: Sequence[Any]) -> None:
        least, largest = min(values), max(values)
        if self._least is None or least < self._least:
            self._least = least
        if self._largest is None or largest > self._largest:
            self._largest = largest


class LongColumn(_RangedColumn):
    """Integers of 64 bits."""

    type_message = number_field(1, 4)
    statistics_field: ClassVar[int] = 2

    def _write(self, values: Sequence[int]) -> None:
        self._widen(values)
        self._data.write(_signed_runs(values))

    def _statistics(self) -> bytes:
        if self._least is None:
            return b""
        span = number_field(1, zigzag(self._least)) + number_field(2, zigzag(self._largest))
        return bytes_field(self.statistics_field, span)


class IntColumn(LongColumn):
    """Integers of 32 bits."""

    type_message = number_field(1, 3)


class DateColumn(LongColumn):
    """Days since 1970, of the proleptic Gregorian calendar."""

    type_message = number_field(1, 15)
    statistics_field = 7

    def _write(self, values: Sequence[int]) -> None:
        super()._write(hybrid_days(values))


class TimestampColumn(_RangedColumn):
    """Microseconds since 1970 UTC, of the proleptic Gregorian calendar."""

    type_message = number_field(1, 9)

    def __init__(self) -> None:
        super().__init__()
        self._nanos = _Stream()

    def _write(self, values: Sequence[int]) -> None:
        values = hybrid_micros(values)
        self._widen(values)
        parts = [divmod(value, _MICROS) for value in values]
        if min(values) >= 0:
            seconds = [second - _TIMESTAMP_BASE for second, _ in parts]
        else:
            # As Java counts: towards zero, where the fraction has milliseconds.
            seconds = [second - _TIMESTAMP_BASE + (second < 0 and micros > 999) for second, micros in parts]
        self._data.write(_signed_runs(seconds))
        self._nanos.write(_groups([_nanos_varint(micros) for _, micros in parts]))

    def _streams(self) -> list[tuple[int, list[bytes]]]:
        return [(DATA, self._data.finish()), (SECONDARY, self._nanos.finish())]

    def _statistics(self) -> bytes:
        if self._least is None:
            return b""
        # In milliseconds, rounded outwards.
        least, largest = zigzag(self._least // 1_000), zigzag(-(-self._largest // 1_000))
        return bytes_field(
            9, b"".join(number_field(f, n) for f, n in ((1, least), (2, largest), (3, least), (4, largest)))
        )


class DoubleColumn(OrcColumn):
    """Floating-point numbers of 64 bits."""

    type_message = number_field(1, 6)

    def _write(self, values: Sequence[float]) -> None:
        self._data.write(struct.pack(f"<{len(values)}d", *values))


class BooleanColumn(OrcColumn):
    """True and false."""

    type_message = number_field(1, 0)

    def __init__(self) -> None:
        super().__init__()
        self._bits = _Bits()
        self._true = 0

    def _write(self, values: Sequence[bool]) -> None:
        self._true += sum(values)
        self._bits.write(bytes([49 if value else 48 for value in values]))

    def _streams(self) -> list[tuple[int, list[bytes]]]:
        return [(DATA, self._bits.finish())]

    def absorb(self, other: Self) -> None:
        """Add the statistics of another stripe's column."""
        super().absorb(other)
        self._true += other._true

    def _statistics(self) -> bytes:
        return bytes_field(5, packed_field(1, [self._true]))


class DecimalColumn(OrcColumn):
    """Unscaled integers of decimals of one precision and scale."""

    precision: ClassVar[int]
    scale: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self._scales = _Stream()

    def _write(self, values: Sequence[int]) -> None:
        self._data.write(b"".join([varint(zigzag(value)) for value in values]))
        self._scales.write(_signed_runs([self.scale] * len(values)))

    def _streams(self) -> list[tuple[int, list[bytes]]]:
        return [(DATA, self._data.finish()), (SECONDARY, self._scales.finish())]


def decimal_column(digits: int, scale: int) -> type[OrcColumn]:
    """Return the column type of decimals with so many digits, `scale` of them after the point."""
    message = number_field(1, 14) + number_field(5, digits) + number_field(6, scale)
    return type(
        f"Decimal{digits}Point{scale}OrcColumn",
        (DecimalColumn,),
        {"precision": digits, "scale": scale, "type_message": message},
    )


def _unsigned_runs(values: Sequence[int]) -> bytes:
    if max(values) < 0x80:
        return _byte_groups(bytes(values))
    return _groups(_varints(values))


def _signed_runs(values: Sequence[int]) -> bytes:
    return _groups(_varints([value << 1 if value >= 0 else (-value << 1) - 1 for value in values]))


def _varints(values: Sequence[int]) -> list[bytes]:
    """Return each number as `varint` does: by tables of 14 bits where that is enough."""
    largest = max(values)
    if largest < 1 << 14:
        return [_VARINTS[value] for value in values]
    if largest < 1 << 28:
        return [
            _CONTINUED[value & 0x3FFF] + _VARINTS[value >> 14] if value > 0x3FFF else _VARINTS[value]
            for value in values
        ]
    if largest < 1 << 42 and min(values) >= 1 << 28:
        return [
            _CONTINUED[value & 0x3FFF] + _CONTINUED[value >> 14 & 0x3FFF] + _VARINTS[value >> 28] for value in values
        ]
    return [varint(value) for value in values]


def _groups(varints: Sequence[bytes]) -> bytes:
    """Return integers, each a varint, as runs of equal ones or groups of literals."""
    out = []
    for start in range(0, len(varints), _GROUP):
        group = varints[start : start + _GROUP]
        count = len(group)
        if count > 2 and group[0] == group[-1] and group.count(group[0]) == count:
            out.append(bytes((count - 3, 0)) + group[0])
        else:
            out.append(bytes((256 - count,)))
            out += group
    return b"".join(out)


def _byte_groups(values: bytes) -> bytes:
    """As `_groups`, of integers below 128."""
    out = []
    for start in range(0, len(values), _GROUP):
        group = values[start : start + _GROUP]
        count = len(group)
        if count > 2 and group[0] == group[-1] and group.count(group[0]) == count:
            out.append(bytes((count - 3, 0, group[0])))
        else:
            out.append(bytes((256 - count,)))
            out.append(group)
    return b"".join(out)


def _byte_runs(values: bytes) -> bytes:
    """Return bytes as runs of equal ones or groups of literals: as `_groups`, but a run has no step."""
    out = []
    for start in range(0, len(values), _GROUP):
        group = values[start : start + _GROUP]
        count = len(group)
        if count > 2 and group[0] == group[-1] and group.count(group[0]) == count:
            out.append(bytes((count - 3, group[0])))
        else:
            out.append(bytes((256 - count,)))
            out.append(group)
    return b"".join(out)


@lru_cache(maxsize=8192)
def _nanos_varint(micros: int) -> bytes:
    """Return a fraction of a second as ORC writes it: nanoseconds, two to eight trailing zeros as a code."""
    if not micros:
        return b"\0"
    nanos = micros * 1_000
    zeros = min(len(str(nanos)) - len(str(nanos).rstrip("0")), 8)
    return varint(nanos // 10**zeros << 3 | zeros - 1)
