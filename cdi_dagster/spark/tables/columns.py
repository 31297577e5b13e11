"""From a block of records to the typed columns of the managed table.

A block of usual records is read by `typed_records`. Any other is parsed in full by orjson; what orjson does not keep
character for character, or refuses, is taken from the record's text (`json_spans`). Runs in Spark's Python workers.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import orjson

from cdi_dagster.spark.tables import json_spans
from cdi_dagster.spark.tables.typed_records import ColumnRules, TypedRecords
from cdi_dagster.spark.tables.values import (
    UNPARSABLE,
    Conversion,
    JsonText,
    conversion,
    converted_at_once,
    moment_text,
)

_NOTHING: Final[dict[str, Any]] = {}
_TEXT_OR_NULL: Final = {str, type(None)}


class ColumnReader:
    """Takes the columns out of blocks of records.

    Args:
        columns: of the managed table, in order.

    Attributes:
        unparsable: by column, how many values are null because they are not of its type.
        slow_records: records that were taken from their text.
    """

    def __init__(self, columns: Sequence[ColumnRules]) -> None:
        self.unparsable: Counter[str] = Counter()
        self.slow_records = 0
        self._columns = columns
        self._typed = TypedRecords(columns)
        self._conversions = [conversion(column.type) for column in columns]
        self._by_text = [column.type == "string" or column.type.startswith("decimal") for column in columns]
        self._parents = sorted({column.path[:i] for column in columns for i in range(1, len(column.path))}, key=len)

    def read(self, text: bytes, count: int) -> list[list[Any]]:
        """Return the typed values of each column, None for null.

        Args:
            text: records, each ended by a newline.
            count: how many.
        """
        typed = self._typed.read(text, count)
        return self._read_in_full(_Block(text, count)) if typed is None else typed

    def _read_in_full(self, block: "_Block") -> list[list[Any]]:
        objects: dict[tuple[str, ...], list[Any]] = {(): block.records}
        for parent in self._parents:
            values = [record.get(parent[-1]) for record in objects[parent[:-1]]]
            objects[parent] = [value if type(value) is dict else _NOTHING for value in values]
        read = []
        for column, convert, by_text in zip(self._columns, self._conversions, self._by_text, strict=True):
            key, parents = column.path[-1], objects[column.path[:-1]]
            values = [parent.get(key) for parent in parents]
            if by_text and _put_texts(values, block, column.path):
                self._typed.take_as_text(column.path)
            if block.slow:
                block.put_slow(values, column.path, by_text=by_text)
            read.append(values if convert is None else self._converted(column, values, convert))
        for values, column in zip(read, self._columns, strict=True):
            if block.slow and column.type == "string":
                self._drop_lone_surrogates(column.name, values, block.slow)
        self.slow_records += len(block.slow)
        return read

    def _converted(self, column: ColumnRules, values: list[Any], convert: Conversion) -> list[Any]:
        if column.type in ("date", "timestamp"):
            values = list(map(moment_text, values))
        at_once = converted_at_once(column.type, values)
        if at_once is not None:
            return at_once
        converted = [None if value is None else convert(value) for value in values]
        bad = sum([value is UNPARSABLE for value in converted])
        if bad:
            self.unparsable[column.name] += bad
            return [None if value is UNPARSABLE else value for value in converted]
        return converted

    def _drop_lone_surrogates(self, name: str, values: list[Any], slow: Sequence[int]) -> None:
        """UTF-8 has no lone surrogates; published records have none either."""
        for i in slow:
            if values[i] is not None and not _is_utf8(values[i]):
                values[i] = None
                self.unparsable[name] += 1


def _put_texts(values: list[Any], block: "_Block", path: tuple[str, ...]) -> bool:
    """Replace what is no string by its text in the record; return whether there was any."""
    if set(map(type, values)) <= _TEXT_OR_NULL:
        return False
    for i, value in enumerate(values):
        if value is not None and type(value) is not str:
            values[i] = block.text_of(i, value, path)
    return True


class _Block:
    """The records of a block.

    Attributes:
        records: each as orjson parses it; empty where it is in `slow`.
        slow: numbers of the records that orjson refuses.
    """

    def __init__(self, text: bytes, count: int) -> None:
        self.slow: list[int] = []
        self._text = text
        self._lines: list[bytes] | None = None
        self._all_canonical: bool | None = None
        self._canonical: dict[int, bool] = {}
        self.records = self._parsed(count)

    def _parsed(self, count: int) -> list[dict[str, Any]]:
        try:
            records = orjson.loads(b"[%b]" % self._text[:-1].replace(b"\n", b","))
            if len(records) == count and set(map(type, records)) == {dict}:
                return list(records)
        except orjson.JSONDecodeError:
            pass
        return [self._parsed_line(i, line) for i, line in enumerate(self._all_lines())]

    def _parsed_line(self, i: int, line: bytes) -> dict[str, Any]:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            self.slow.append(i)
            return _NOTHING
        return record if type(record) is dict else _NOTHING

    def text_of(self, i: int, value: Any, path: tuple[str, ...]) -> JsonText:
        """Return the text of a value that is no string.

        Where orjson writes the whole record as it stands, it writes each value as it stands.
        """
        if self._is_canonical(i):
            return JsonText(orjson.dumps(value).decode())
        found = json_spans.find(self._all_lines()[i].decode(), path)
        return JsonText(found[1] if found else "")

    def _is_canonical(self, i: int) -> bool:
        if self._all_canonical is None:
            self._all_canonical = orjson.dumps(self.records)[1:-1] == self._text[:-1].replace(b"\n", b",")
        if self._all_canonical:
            return True
        canonical = self._canonical.get(i)
        if canonical is None:
            canonical = self._canonical[i] = orjson.dumps(self.records[i]) == self._all_lines()[i]
        return canonical

    def put_slow(self, values: list[Any], path: tuple[str, ...], *, by_text: bool) -> None:
        """Put the values of the records in `slow`."""
        for i in self.slow:
            found = json_spans.find(self._all_lines()[i].decode(), path)
            value, text = found or (None, "")
            values[i] = JsonText(text) if by_text and value is not None and type(value) is not str else value

    def _all_lines(self) -> list[bytes]:
        if self._lines is None:
            self._lines = self._text.split(b"\n")[:-1]
        return self._lines


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
