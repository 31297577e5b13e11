"""Parses a block of records straight into a definition's columns, where every value is of its column's usual form.

msgspec reads the definition's paths into structs, passes over the rest, and refuses a value of another type: half the
work of a dict of everything. What is not usual is left to `columns`, by whole blocks, so that both give the same
values.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, Protocol

import msgspec

from cdi_dagster.spark.tables.values import UNPARSABLE, JsonText, conversion, converted_at_once

_JSON_STRING: Final = b'"'
_JSON_NULL: Final = b"null"
_MISSES_FORGIVEN: Final = 8


class _Moment(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The platform's form of a moment."""

    d_date: str


_FORMS: Final[dict[str, Any]] = {
    "string": str | None,
    "bigint": int | None,
    "int": int | None,
    "double": int | float | None,
    "boolean": bool | None,
    "date": _Moment | str | None,
    "timestamp": _Moment | str | None,
}
"""By column type; of another (a decimal) the record's text counts."""


class ColumnRules(Protocol):
    """What is known of a column here."""

    @property
    def name(self) -> str:
        """In the table."""

    @property
    def path(self) -> tuple[str, ...]:
        """JSON keys from the top of the record down to the value."""

    @property
    def type(self) -> str:
        """Hive type."""


class _UnusualError(Exception):
    """A value is not of its column's usual form."""


class TypedRecords:
    """Takes all columns out of blocks of records that are usual throughout.

    Args:
        columns: of the managed table, in order.
    """

    def __init__(self, columns: Sequence[ColumnRules]) -> None:
        self._columns = columns
        self._as_text = {column.path for column in columns if column.type not in _FORMS}
        self._misses = self._hits = 0
        self._prepare()

    def _prepare(self) -> None:
        self._decoder: Any = None
        forms = {column.path: self._form(column) for column in self._columns}
        parents = {path[:length] for path in forms for length in range(1, len(path))}
        if any(forms[column.path] != self._form(column) for column in self._columns) or parents & forms.keys():
            return  # two columns take one value in two ways
        self._parents = sorted(parents, key=len)
        self._names: dict[tuple[str, ...], str] = {}
        self._empty: dict[tuple[str, ...], Any] = {}
        try:
            self._decoder = msgspec.json.Decoder(list[self._struct((), forms)])  # type: ignore[misc]
        except ValueError:  # a key that msgspec takes for no name
            return

    def _form(self, column: ColumnRules) -> Any:
        return msgspec.Raw if column.path in self._as_text else _FORMS[column.type]

    def _struct(self, parent: tuple[str, ...], forms: dict[tuple[str, ...], Any]) -> Any:
        """Return the struct of an object of the record; a key that is missing is null."""
        depth = len(parent)
        keys = sorted({path[depth] for path in forms if path[:depth] == parent and len(path) > depth})
        fields, renamed = [], {}
        for number, key in enumerate(keys):
            path, name = (*parent, key), f"f{number}"
            form = forms[path] if path in forms else self._struct(path, forms) | None
            fields.append((name, form, msgspec.Raw(_JSON_NULL) if form is msgspec.Raw else None))
            renamed[name], self._names[path] = key, name
        struct = msgspec.defstruct("Object", fields, rename=renamed, gc=False)
        self._empty[parent] = struct()
        return struct

    def take_as_text(self, path: tuple[str, ...]) -> None:
        """From now on take a column's values by their text in the record: they are not all JSON strings."""
        if path not in self._as_text:
            self._as_text.add(path)
            self._misses = self._hits = 0
            self._prepare()

    def read(self, text: bytes, count: int) -> list[list[Any]] | None:
        """Return the typed values of each column, None for null; or None where the block is not usual.

        Args:
            text: records, each ended by a newline.
            count: how many.
        """
        if self._decoder is None or self._misses > self._hits + _MISSES_FORGIVEN:
            return None
        try:
            records = self._decoder.decode(b"[%b]" % text[:-1].replace(b"\n", b","))
            read = self._columns_of(records) if len(records) == count else None
        except (msgspec.MsgspecError, ValueError, RecursionError, _UnusualError):
            read = None
        if read is None:
            self._misses += 1
        else:
            self._hits += 1
        return read

    def _columns_of(self, records: list[Any]) -> list[list[Any]]:
        objects: dict[tuple[str, ...], list[Any]] = {(): records}
        for parent in self._parents:
            empty, found = self._empty[parent], map(attrgetter(self._names[parent]), objects[parent[:-1]])
            objects[parent] = [empty if value is None else value for value in found]
        return [
            self._converted(column, list(map(attrgetter(self._names[column.path]), objects[column.path[:-1]])))
            for column in self._columns
        ]

    def _converted(self, column: ColumnRules, values: list[Any]) -> list[Any]:
        if column.path in self._as_text:
            values = [_text(bytes(value)) for value in values]
        elif column.type in ("date", "timestamp"):
            values = [value.d_date if type(value) is _Moment else value for value in values]
        convert = conversion(column.type)
        if convert is None:
            return values
        at_once = converted_at_once(column.type, values)
        return _each(convert, values) if at_once is None else at_once


def _each(convert: Any, values: Iterable[Any]) -> list[Any]:
    converted = [None if value is None else convert(value) for value in values]
    if UNPARSABLE in converted:
        raise _UnusualError
    return converted


def _text(value: bytes) -> str | None:
    if value == _JSON_NULL:
        return None
    if value.startswith(_JSON_STRING):
        return str(msgspec.json.decode(value))
    return JsonText(value.decode())
