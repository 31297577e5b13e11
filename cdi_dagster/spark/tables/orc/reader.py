"""Reads back the rows of a small ORC file that `OrcWriter` wrote: texts and integers, none of them null."""

from collections.abc import Iterator
from typing import Any, Final

from cdi_dagster.spark.tables.orc.encodings import DATA, LENGTH
from cdi_dagster.spark.tables.orc.messages import read_fields, read_varint
from cdi_dagster.spark.tables.orc.writer import footer_of_tail, inflated

_STRING: Final = 7


def read_rows(content: bytes) -> Iterator[dict[str, str | int]]:
    """Yield the rows of a file in order, each by the names of its columns.

    Raises:
        ValueError: it is no file of this kind.
    """
    footer = read_fields(footer_of_tail(content))
    root, *types = (read_fields(_bytes(message)) for message in footer[4])
    names = [_bytes(name).decode() for name in root[3]]
    kinds = [kind[1][0] for kind in types]
    for message in footer.get(3, []):
        stripe = read_fields(_bytes(message))
        offset, _, data_bytes, footer_bytes, rows = (_number(stripe[field][0]) for field in range(1, 6))
        end = offset + data_bytes
        streams = _streams(content, offset, read_fields(inflated(content[end : end + footer_bytes])))
        columns = [
            _texts(streams[number, LENGTH], streams[number, DATA])
            if kind == _STRING
            else [_signed(value) for value in _integers(streams[number, DATA])]
            for number, kind in enumerate(kinds, start=1)
        ]
        if any(len(column) != rows for column in columns):
            raise ValueError("a column has nulls, or is damaged")
        yield from (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _streams(content: bytes, offset: int, footer: dict[int, list[Any]]) -> dict[tuple[int, int], bytes]:
    found = {}
    for message in footer[1]:
        kind, number, length = (_number(read_fields(message)[field][0]) for field in (1, 2, 3))
        found[number, kind] = inflated(content[offset : offset + length])
        offset += length
    return found


def _texts(lengths: bytes, joined: bytes) -> list[Any]:
    texts, position = [], 0
    for length in _integers(lengths):
        texts.append(joined[position : position + length].decode())
        position += length
    return texts


def _integers(stream: bytes) -> list[int]:
    """Return run-length encoded integers (version 1)."""
    values: list[int] = []
    position = 0
    while position < len(stream):
        control = stream[position]
        if control < 0x80:
            if stream[position + 1]:
                raise ValueError("a run with steps, which the writer does not write")
            value, position = read_varint(stream, position + 2)
            values += [value] * (control + 3)
        else:
            position += 1
            for _ in range(0x100 - control):
                value, position = read_varint(stream, position)
                values.append(value)
    return values


def _signed(value: int) -> int:
    return value >> 1 ^ -(value & 1)


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("not an ORC file of this writer")  # noqa: TRY004 - of a file, not of a caller
    return value


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("not an ORC file of this writer")  # noqa: TRY004 - of a file, not of a caller
    return value
