"""The definition of a collection's tables: their names, kinds and columns, and what each shows.

Values only; `table_definition_text` reads them from JSON. Column lists are configuration, not code: each collection may
have its own (`cdi_dagster.table_definitions`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

PARTITION_COLUMN = "date_str"
"""Partitions every table of a day; its value is the export day."""


class TableKind(StrEnum):
    """What a table is made from."""

    RAW = "raw"
    """Table of the records: every one exactly, in the one column `val`."""
    MANAGED = "managed"
    """Table of the records: one typed column for each configured path."""
    VIEW = "view"
    """View over managed."""
    TABLE = "table"
    """What such a view would show, as a table with data of its own: for readers who may not read managed's data."""
    SNAPSHOT = "snapshot"
    """Table of a snapshot's rows, of columns of its own; not partitioned: each publication replaces all of it."""


class Showing(StrEnum):
    """What a view or table over managed shows of a column."""

    KEEP = "keep"
    """Unchanged."""
    MASK = "mask"
    """A constant where there is a value, null where there is none. Text columns only."""
    HASH = "hash"
    """SHA-256 of the value's text: equal values have equal hashes, so a guessed value can be confirmed."""
    DROP = "drop"
    """Not in it."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes:
        name: lower case, as in Hive; may begin with a digit and be a reserved word.
        path: JSON keys from the top of the record down to the value, case-sensitive; empty for the whole record.
        type: of the record's value: string, boolean, int, bigint, double, date, timestamp or decimal(digits,scale).
        comment: for the table's description.
        showing: what the table shows of the value; never `drop`.
    """

    name: str
    path: tuple[str, ...]
    type: str
    comment: str = ""
    showing: Showing = Showing.KEEP

    @property
    def shown_type(self) -> str:
        """The column's type in the table."""
        return "string" if self.showing is Showing.HASH else self.type


RAW_COLUMNS = (Column(name="val", path=(), type="string", comment="The record, exactly"),)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table or view of a definition.

    Attributes:
        name: `database.name`, lower case.
        kind: what it is made from.
        columns: in order, without the partition column and without what is dropped.
        about: what it is for.
        replaces: `view` where it may take the place of a view of this name, `table` the other way round, or neither.
    """

    name: str
    kind: TableKind
    columns: tuple[Column, ...]
    about: str = ""
    replaces: TableKind | None = None

    @property
    def database(self) -> str:
        """The part before the dot."""
        return self.name.partition(".")[0]

    @property
    def short_name(self) -> str:
        """The part after the dot: unique in a definition, and the last part of the asset key."""
        return self.name.partition(".")[2]

    @property
    def is_partitioned(self) -> bool:
        """Whether it has a partition for each export day."""
        return self.kind is not TableKind.SNAPSHOT

    @property
    def is_over_managed(self) -> bool:
        """Whether it shows columns of the managed table."""
        return self.kind in (TableKind.VIEW, TableKind.TABLE)


@dataclass(frozen=True, kw_only=True)
class TableDefinition:
    """The tables published of a collection, in the order in which they are published.

    Attributes:
        tables: raw, managed, then those over managed.
        source: where the definition was read.
        text: the definition as it was read.
    """

    tables: tuple[Table, ...]
    source: str
    text: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """Of the text: which definition made a partition."""
        return sha256(self.text).hexdigest()

    @property
    def is_of_snapshots(self) -> bool:
        """Whether its tables are made from snapshots; all of a definition are, or none."""
        return any(table.kind is TableKind.SNAPSHOT for table in self.tables)

    @property
    def managed(self) -> Table | None:
        """The managed table, if there is one."""
        return next((table for table in self.tables if table.kind is TableKind.MANAGED), None)

    def named(self, short_names: Iterable[str]) -> tuple[Table, ...]:
        """Return the tables of these short names, in the order of the definition.

        Raises:
            ValueError: none, or a name that no table has; the message lists those there are.
        """
        wanted = set(short_names)
        known = [table.short_name for table in self.tables]
        if not wanted or wanted - set(known):
            raise ValueError(f"{', '.join(sorted(wanted)) or 'nothing'} must be some of {', '.join(known)}")
        return tuple(table for table in self.tables if table.short_name in wanted)
