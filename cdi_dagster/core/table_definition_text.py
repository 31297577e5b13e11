"""Reads a definition of tables from its JSON text, and finds every error in it: each with its place and its fix.

The format is described, by example, in `docs/tables.md`. Pure.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.json_places import JsonPlaces, Place
from cdi_dagster.core.table_definition import (
    PARTITION_COLUMN,
    RAW_COLUMNS,
    Column,
    Showing,
    Table,
    TableDefinition,
    TableKind,
)

FORMAT_VERSION = 2

_NAME = re.compile(r"[A-Za-z0-9_]{1,128}")
_TYPES = "string, boolean, int, bigint, double, date, timestamp or decimal(digits,scale)"
_TYPE = re.compile(r"string|boolean|int|bigint|double|date|timestamp|decimal\((?P<digits>\d{1,2}),(?P<scale>\d{1,2})\)")
_MOST_DIGITS = 38
_HASHED_TYPES = ("string", "int", "bigint")
"""Those with one text for each value, whatever the reader's time zone or Spark."""
_DEFINITION_KEYS = ("format_version", "about", "tables", "columns")
_TABLE_KEYS = ("name", "kind", "about", "replaces", "columns")
_COLUMN_KEYS = ("name", "path", "type", "comment", "shown")
_ORDER = {TableKind.RAW: 0, TableKind.MANAGED: 1}
_OTHER_ASSETS = {"daily_records", "daily_rows", "snapshot"}
_SHOWN_PROBLEMS = 20

_ShownColumn = tuple[Column, dict[str, Showing]]
"""A column, and what each view or table over managed shows of it, by its short name."""


def parse_table_definition(text: bytes, *, source: str) -> TableDefinition:
    """Read and check a definition.

    Args:
        text: the JSON text.
        source: where it comes from, for messages and the report.

    Raises:
        CdiError: INPUT_INVALID, with everything that is wrong, where, and how to write it; `detail["problems"]` has
            them one by one.
    """
    try:
        decoded = text.decode("utf-8-sig")
        value = json.loads(decoded)
    except json.JSONDecodeError as error:
        raise _unusable(source, [f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}"]) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise _unusable(source, [f"not JSON in UTF-8 ({type(error).__name__})"]) from error
    reading = _Reading(JsonPlaces(decoded))
    tables = reading.definition(value)
    if reading.problems:
        raise _unusable(source, reading.problems)
    return TableDefinition(tables=tables, source=source, text=text)


class _Reading:
    """One pass over a definition, collecting what is wrong with it."""

    def __init__(self, places: JsonPlaces) -> None:
        self._places = places
        self.problems: list[str] = []
        for place in places.repeated:
            self._wrong(place, "is there twice; keep one")

    def definition(self, value: Any) -> tuple[Table, ...]:
        """Return the tables, complete only where there is no problem."""
        if not isinstance(value, dict):
            self._wrong((), 'must be an object: {"format_version": 2, "tables": […], "columns": […]}')
            return ()
        if value.get("format_version") == 1:
            value = _from_version_1(value)
        elif value.get("format_version") != FORMAT_VERSION:
            self._wrong(("format_version",), f"is {value.get('format_version')!r}; write {FORMAT_VERSION}")
            return ()
        self._refuse_unknown((), value, _DEFINITION_KEYS)
        tables = self._tables(value.get("tables"))
        # What the columns are shown by is not known where a table cannot be read.
        shown_by = None if self.problems else [table.short_name for table in tables if table.is_over_managed]
        columns = self._columns(value, tables, shown_by)
        return tuple(self._with_columns(table, columns) for table in tables)

    def _tables(self, rows: Any) -> list[Table]:
        if not isinstance(rows, list) or not rows:
            self._wrong(("tables",), 'must be a list of at least one table: {"name": "database.name", "kind": "raw"}')
            return []
        tables: list[Table] = []
        for number, row in enumerate(rows):
            table = self._table(("tables", number), row)
            if table:
                self._check_beside(("tables", number), table, tables)
                tables.append(table)
        has_managed = any(table.kind is TableKind.MANAGED for table in tables)
        if any(table.is_over_managed for table in tables) and not has_managed:
            self._wrong(("tables",), 'has a view or table over managed, but no table of the kind "managed": add it')
        return sorted(tables, key=lambda table: _ORDER.get(table.kind, len(_ORDER)))

    def _table(self, place: Place, row: Any) -> Table | None:
        if not isinstance(row, dict):
            self._wrong(place, 'must be an object: {"name": "database.name", "kind": "raw"}')
            return None
        self._refuse_unknown(place, row, _TABLE_KEYS)
        name, kind, replaces = row.get("name"), row.get("kind"), row.get("replaces")
        parts = name.split(".") if isinstance(name, str) else []
        if len(parts) != 2 or not all(_NAME.fullmatch(part) for part in parts):
            self._wrong((*place, "name"), f'is {name!r}; write "database.name", in letters, digits and _')
        if kind not in list(TableKind):
            self._wrong((*place, "kind"), f"is {kind!r}; write one of {', '.join(TableKind)}")
        elif kind != TableKind.SNAPSHOT and "columns" in row:
            self._wrong((*place, "columns"), 'are of a table of the kind "snapshot" only; write them beside "tables"')
        elif replaces not in {"view": (None, "table"), "table": (None, "view")}.get(kind, (None,)):
            self._wrong((*place, "replaces"), f'is {replaces!r}; only a view can replace a "table", a table a "view"')
        elif len(parts) == 2:
            own = self._own_columns((*place, "columns"), row.get("columns")) if kind == TableKind.SNAPSHOT else ()
            return Table(
                name=str(name).lower(),
                kind=TableKind(kind),
                columns=own,
                about=str(row.get("about", "")),
                replaces=TableKind(replaces) if replaces else None,
            )
        return None

    def _check_beside(self, place: Place, table: Table, others: list[Table]) -> None:
        if table.short_name in _OTHER_ASSETS | {*(other.short_name for other in others)}:
            self._wrong((*place, "name"), f"ends in {table.short_name} as another asset does; give it another name")
        if any((other.kind is TableKind.SNAPSHOT) != (table.kind is TableKind.SNAPSHOT) for other in others):
            self._wrong((*place, "kind"), 'is beside others; a definition is of the kind "snapshot" alone, or without')
        if table.kind in _ORDER and any(other.kind is table.kind for other in others):
            self._wrong((*place, "kind"), f'is a second "{table.kind}"; a definition has one')

    def _columns(self, value: Mapping[str, Any], tables: list[Table], shown_by: list[str] | None) -> list[_ShownColumn]:
        rows = value.get("columns")
        if shown_by is not None and not any(table.kind is TableKind.MANAGED for table in tables):
            if rows:
                self._wrong(("columns",), 'are those of a table of the kind "managed", and there is none: add it')
            return []
        if not isinstance(rows, list) or not rows:
            self._wrong(("columns",), "must be a list of at least one column")
            return []
        columns = self._column_rows(("columns",), rows, shown_by)
        for short_name in shown_by or ():
            if columns and all(shown.get(short_name) is Showing.DROP for _, shown in columns):
                self._wrong(("columns",), f'are all "drop" in {short_name}; it needs at least one column')
        return columns

    def _own_columns(self, place: Place, rows: Any) -> tuple[Column, ...]:
        """Return the columns of a table of a snapshot, which shows all of them."""
        if not isinstance(rows, list) or not rows:
            self._wrong(place, 'must be a list of at least one column: {"name": "a", "path": ["a"], "type": "string"}')
            return ()
        return tuple(column for column, _ in self._column_rows(place, rows, []))

    def _column_rows(self, where: Place, rows: list[Any], shown_by: list[str] | None) -> list[_ShownColumn]:
        columns = []
        first_places: dict[str, Place] = {}
        for number, row in enumerate(rows):
            place: Place = (*where, number)
            column = self._column(place, row, shown_by)
            if column is None:
                continue
            columns.append(column)
            name = column[0].name
            if name == PARTITION_COLUMN:
                self._wrong((*place, "name"), f"{name} is the partition column; give this one another name")
            if name in first_places:
                first = self._places.describe(first_places[name])
                self._wrong((*place, "name"), f"is {name}, as {first} is, and Hive ignores case")
            first_places.setdefault(name, (*place, "name"))
        return columns

    def _column(self, place: Place, row: Any, shown_by: list[str] | None) -> _ShownColumn | None:
        if not isinstance(row, dict):
            self._wrong(place, 'must be an object: {"name": "a", "path": ["a"], "type": "string"}')
            return None
        self._refuse_unknown(place, row, _COLUMN_KEYS)
        name, path, kind = row.get("name"), row.get("path"), row.get("type")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self._wrong((*place, "name"), f"is {name!r}; use up to 128 letters, digits and _")
            name = ""
        keys = [path] if isinstance(path, str) else path
        if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):
            self._wrong((*place, "path"), "must be a key of the record, or the list of keys down to the value")
            keys = []
        if not _is_type(kind):
            self._wrong((*place, "type"), f"is {kind!r}; write {_TYPES}, 1 to {_MOST_DIGITS} digits, scale in them")
        shown = {} if shown_by is None else self._shown((*place, "shown"), row.get("shown", {}), kind, shown_by)
        column = Column(name=name.lower(), path=tuple(keys), type=str(kind), comment=str(row.get("comment", "")))
        return (column, shown) if name else None

    def _shown(self, place: Place, value: Any, kind: Any, shown_by: list[str]) -> dict[str, Showing]:
        # No default: what each audience may see of a column is decided when the column is added.
        if not isinstance(value, dict):
            self._wrong(place, f"must be an object with what each of {', '.join(shown_by)} shows of the column")
            return {}
        given = {name.lower(): (name, showing) for name, showing in value.items()}
        shown = {}
        for name in shown_by:
            written, showing = given.pop(name, (name, None))
            if showing not in list(Showing):
                self._wrong((*place, written), f"is {showing!r}; write one of {', '.join(Showing)}")
            elif showing == Showing.MASK and _is_type(kind) and kind != "string":
                self._wrong((*place, written), f'is "mask", which is for text only, and the column is {kind}: drop it')
            elif showing == Showing.HASH and _is_type(kind) and kind not in _HASHED_TYPES:
                fix = f"is for {', '.join(_HASHED_TYPES)}, and the column is {kind}: drop it"
                self._wrong((*place, written), f'is "hash", which {fix}')
            else:
                shown[name] = Showing(showing)
        for written, _ in given.values():
            self._wrong((*place, written), "is no view or table over managed of this definition; correct the name")
        return shown

    def _with_columns(self, table: Table, columns: list[_ShownColumn]) -> Table:
        if table.kind is TableKind.SNAPSHOT:
            return table
        if table.kind is TableKind.RAW:
            return replace(table, columns=RAW_COLUMNS)
        if table.kind is TableKind.MANAGED:
            return replace(table, columns=tuple(column for column, _ in columns))
        showings = ((column, shown.get(table.short_name, Showing.DROP)) for column, shown in columns)
        return replace(
            table,
            columns=tuple(
                replace(column, showing=showing) for column, showing in showings if showing is not Showing.DROP
            ),
        )

    def _refuse_unknown(self, place: Place, value: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in value:
            if key not in known:
                self._wrong((*place, key), f"is unknown; known here are {', '.join(known)}")

    def _wrong(self, place: Place, what: str) -> None:
        self.problems.append(f"{self._places.describe(place)} {what}")


def _is_type(kind: Any) -> bool:
    match = _TYPE.fullmatch(kind) if isinstance(kind, str) else None
    if match is None or match["digits"] is None:
        return match is not None
    return 1 <= int(match["digits"]) <= _MOST_DIGITS and int(match["scale"]) <= int(match["digits"])


def _from_version_1(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a definition of version 1, which had exactly four tables, as one of version 2."""
    kinds = {"raw": "raw", "managed": "managed", "secured": "view", "redacted": "view"}
    tables = [{"name": value.get(key), "kind": kind} for key, kind in kinds.items()]
    shown_by = {key: str(value.get(key)).partition(".")[2] for key in ("secured", "redacted")}
    columns: Any = value.get("columns")
    if isinstance(columns, list):
        columns = [_column_from_version_1(row, shown_by) if isinstance(row, dict) else row for row in columns]
    rest = {key: part for key, part in value.items() if key not in kinds}
    return {**rest, "format_version": FORMAT_VERSION, "tables": tables, "columns": columns}


def _column_from_version_1(row: Mapping[str, Any], shown_by: Mapping[str, str]) -> dict[str, Any]:
    kept = {key: part for key, part in row.items() if key not in shown_by}
    return {**kept, "shown": {short_name: row.get(key) for key, short_name in shown_by.items()}}


def _unusable(source: str, problems: list[str]) -> CdiError:
    more = len(problems) - _SHOWN_PROBLEMS
    listed = "; ".join(problems[:_SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
    return CdiError(
        FailureClass.INPUT_INVALID,
        f"The table definition {source} cannot be used: {listed}.",
        next_step="Correct it (cdi tables check shows what is wrong), then load it again.",
        detail={"table_definition": source, "problems": problems},
    )
