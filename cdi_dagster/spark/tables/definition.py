"""The definition of a table set: its tables, views and columns, read from JSON.

Column lists are configuration, not code: `audit.json` in this folder fits the sample data, `--table-config` names
another. Every error in a definition is found here, before Spark starts, and reported with its fix. Standard library
only.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from importlib.resources import files
from typing import Any

from cdi_dagster.core.failures import CdiError, FailureClass

FORMAT_VERSION = 1
PARTITION_COLUMN = "date_str"

_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_TYPES = re.compile(
    r"string|boolean|int|bigint|double|date|timestamp|decimal\((?P<digits>\d{1,2}),(?P<scale>\d{1,2})\)"
)
_COLUMN_KEYS = {"name", "path", "type", "secured", "redacted", "comment"}
_TABLE_KEYS = {"format_version", "about", "raw", "managed", "secured", "redacted", "columns"}
_MAX_DECIMAL_DIGITS = 38


class TableKind(StrEnum):
    """The members of a table set, in the order in which they are published."""

    RAW = "raw"
    """Table: every record exactly, in the one column `val`."""
    MANAGED = "managed"
    """Table: one typed column for each configured path of the record."""
    SECURED = "secured"
    """View over managed for those cleared to see everything: chosen columns unchanged."""
    REDACTED = "redacted"
    """View over managed for everybody else: sensitive columns masked, hashed or dropped."""

    @property
    def is_view(self) -> bool:
        """Whether it is a view over the managed table."""
        return self in (TableKind.SECURED, TableKind.REDACTED)


class Showing(StrEnum):
    """What a view shows of a column."""

    KEEP = "keep"
    """Unchanged."""
    MASK = "mask"
    """A constant where there is a value, null where there is none. Text columns only."""
    HASH = "hash"
    """SHA-256 of the value: equal values have equal hashes, so a guessed value can be confirmed."""
    DROP = "drop"
    """Not in the view."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the managed table.

    Attributes:
        name: lower case, as in Hive.
        path: JSON keys from the top of the record down to the value; case-sensitive.
        type: a Hive type: string, boolean, int, bigint, double, date, timestamp or decimal(digits,scale). An object or
            a list under `path` becomes its JSON text in a string column; a timestamp also takes `{"d_date": "…"}`.
        secured: what the secured view shows of it.
        redacted: what the redacted view shows of it.
        comment: for the table's description.
    """

    name: str
    path: tuple[str, ...]
    type: str
    secured: Showing
    redacted: Showing
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class TableSet:
    """The tables and views published of a collection.

    Attributes:
        names: `database.name` of each member.
        columns: of the managed table, in order, without the partition column.
        source: where the definition was read.
        sha256: of the definition's text, to know which definition made a partition.
    """

    names: Mapping[TableKind, str]
    columns: tuple[Column, ...]
    source: str
    sha256: str

    def columns_shown(self, view: TableKind) -> tuple[tuple[Column, Showing], ...]:
        """Return the columns of a view with what it shows of each, dropped ones left out."""
        showings = (
            (column, column.secured if view is TableKind.SECURED else column.redacted) for column in self.columns
        )
        return tuple((column, showing) for column, showing in showings if showing is not Showing.DROP)


def shipped_table_set(name: str) -> TableSet:
    """Return a table set that ships with the package.

    Raises:
        CdiError: INPUT_INVALID where there is none of that name.
    """
    resource = files("cdi_dagster.spark.tables").joinpath(f"{name}.json")
    if not resource.is_file():
        raise _invalid(f"{name}.json", "no table set of that name ships with this package")
    return parse_table_set(resource.read_bytes(), source=f"{name}.json (shipped)")


def parse_table_set(text: bytes, *, source: str) -> TableSet:
    """Read and check a definition.

    Args:
        text: the JSON text.
        source: where it comes from, for messages and the report.

    Raises:
        CdiError: INPUT_INVALID, with what is wrong, where, and how to write it.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _invalid(source, f"it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise _invalid(source, "it must be a JSON object")
    if value.get("format_version") != FORMAT_VERSION:
        raise _invalid(
            source, f'"format_version" is {value.get("format_version")!r}; this version reads {FORMAT_VERSION}'
        )
    _refuse_unknown(source, "the definition", value, _TABLE_KEYS)
    rows = value.get("columns")
    if not isinstance(rows, list) or not rows:
        raise _invalid(source, '"columns" must be a list of at least one column')
    table_set = TableSet(
        names={kind: _table_name(source, kind, value.get(kind)) for kind in TableKind},
        columns=tuple(_column(source, number, row) for number, row in enumerate(rows, start=1)),
        source=source,
        sha256=sha256(text).hexdigest(),
    )
    _check_together(source, table_set)
    return table_set


def _table_name(source: str, kind: TableKind, value: Any) -> str:
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) != 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise _invalid(
            source, f'"{kind}" is {value!r}; write it as "database.name", lower case, for example "uc.name_v"'
        )
    return str(value)


def _column(source: str, number: int, row: Any) -> Column:
    if not isinstance(row, dict):
        raise _invalid(source, f"column {number} must be a JSON object")
    name = row.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _invalid(
            source, f"column {number} has the name {name!r}; use lower case letters, digits and _ (as Hive does)"
        )
    _refuse_unknown(source, f"column {name}", row, _COLUMN_KEYS)
    column = Column(
        name=name,
        path=_path(source, name, row.get("path")),
        type=_type(source, name, row.get("type")),
        secured=_showing(source, name, TableKind.SECURED, row.get("secured")),
        redacted=_showing(source, name, TableKind.REDACTED, row.get("redacted")),
        comment=str(row.get("comment", "")),
    )
    for view, showing in ((TableKind.SECURED, column.secured), (TableKind.REDACTED, column.redacted)):
        if showing is Showing.MASK and column.type != "string":
            raise _invalid(
                source, f'column {name} is {column.type}, and only text can be masked: use "hash" or "drop" in "{view}"'
            )
    return column


def _path(source: str, name: str, value: Any) -> tuple[str, ...]:
    keys = [value] if isinstance(value, str) else value
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) and key for key in keys):
        raise _invalid(
            source, f'column {name} needs "path": a key of the record, or the list of keys down to the value'
        )
    return tuple(keys)


def _type(source: str, name: str, value: Any) -> str:
    match = _TYPES.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _invalid(
            source,
            f"column {name} has the type {value!r}; use string, boolean, int, bigint, double, date, timestamp or "
            "decimal(digits,scale)",
        )
    if (
        match["digits"]
        and not int(match["scale"]) <= int(match["digits"]) <= _MAX_DECIMAL_DIGITS
        or match["digits"] == "0"
    ):
        raise _invalid(source, f"column {name} has the type {value}; digits go from 1 to 38 and scale up to digits")
    return str(value)


def _showing(source: str, name: str, view: TableKind, value: Any) -> Showing:
    # No default: what each audience may see of a column is decided when the column is added.
    if value not in set(Showing):
        raise _invalid(source, f'column {name} needs "{view}": one of keep, mask, hash, drop (it has {value!r})')
    return Showing(value)


def _check_together(source: str, table_set: TableSet) -> None:
    names = [column.name for column in table_set.columns]
    for name in names:
        if names.count(name) > 1:
            raise _invalid(source, f"two columns have the name {name}; Hive needs different ones")
        if name == PARTITION_COLUMN:
            raise _invalid(source, f"{name} is the partition column; give that column another name")
    if len(set(table_set.names.values())) != len(table_set.names):
        raise _invalid(source, '"raw", "managed", "secured" and "redacted" must have different names')
    for view in (TableKind.SECURED, TableKind.REDACTED):
        if not table_set.columns_shown(view):
            raise _invalid(source, f'every column is "drop" in "{view}"; a view needs at least one column')


def _refuse_unknown(source: str, what: str, value: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(value) - known)
    if unknown:
        raise _invalid(source, f"{what} has the unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}")


def _invalid(source: str, what: str) -> CdiError:
    return CdiError(
        FailureClass.INPUT_INVALID,
        f"The table definition {source} cannot be used: {what}.",
        next_step="Correct the definition that --table-config names, then publish the tables again.",
        detail={"table_config": source},
    )
