"""The SQL text of the tables and views. Pure: from names, columns and locations to a statement.

Every name is quoted here, as it may begin with a digit or be a reserved word; `table_definition_text` has refused
those with other characters than letters, digits and `_`.
"""

from collections.abc import Iterable
from datetime import date

from cdi_dagster.core.table_definition import PARTITION_COLUMN, Column, Showing, Table

MASK = "REDACTED"


def literal(text: str) -> str:
    """Return a text as an SQL literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def identifier(name: str) -> str:
    """Return a name, or several with dots between, as an SQL identifier."""
    return ".".join(f"`{part}`" for part in name.split("."))


def create_database(database: str, location: str) -> str:
    """Create a database."""
    return f"CREATE DATABASE IF NOT EXISTS {identifier(database)} LOCATION {literal(location)}"


def create_table(table: Table, location: str) -> str:
    """Create an external ORC table, partitioned where it is of days."""
    partitioned = f"PARTITIONED BY ({identifier(PARTITION_COLUMN)} STRING COMMENT 'Export day') "
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {identifier(table.name)} ({', '.join(map(_column, table.columns))}) "
        f"{partitioned if table.is_partitioned else ''}"
        f"STORED AS ORC LOCATION {literal(location)} TBLPROPERTIES ('orc.compress' = 'ZLIB')"
    )


def add_columns(table: str, columns: Iterable[Column]) -> str:
    """Append columns to a table; older partitions read as null in them."""
    return f"ALTER TABLE {identifier(table)} ADD COLUMNS ({', '.join(map(_column, columns))})"


def partition(export_day: date) -> str:
    """Name one partition in a statement."""
    return f"PARTITION ({identifier(PARTITION_COLUMN)} = '{export_day}')"


def add_partition(table: str, export_day: date, folder: str) -> str:
    """Add a partition that does not exist yet, in one step."""
    return f"ALTER TABLE {identifier(table)} ADD IF NOT EXISTS {partition(export_day)} LOCATION {literal(folder)}"


def set_location(table: str, folder: str, export_day: date | None = None) -> str:
    """Point a table, or one of its partitions, at another folder, in one step."""
    where = f"{partition(export_day)} " if export_day else ""
    return f"ALTER TABLE {identifier(table)} {where}SET LOCATION {literal(folder)}"


def view_select(managed: str, columns: Iterable[Column]) -> str:
    """Return the SELECT of a view over the managed table: its columns as shown, then the partition column."""
    shown = ", ".join([*map(shown_column, columns), identifier(PARTITION_COLUMN)])
    return f"SELECT {shown} FROM {identifier(managed)}"  # noqa: S608 (names are checked)


def shown_column(column: Column) -> str:
    """Return a column of the managed table as a table shows it (`showing.shown_value` does the same in Python)."""
    name = identifier(column.name)
    if column.showing is Showing.KEEP:
        return name
    if column.showing is Showing.MASK:
        return f"CASE WHEN {name} IS NULL THEN NULL ELSE {literal(MASK)} END AS {name}"
    if column.showing is Showing.HASH:
        return f"sha2(CAST({name} AS STRING), 256) AS {name}"
    raise ValueError(f"{column.name} is {column.showing}: no table holds such a column")


def _column(column: Column) -> str:
    comment = f" COMMENT {literal(column.comment)}" if column.comment else ""
    return f"{identifier(column.name)} {column.shown_type.upper()}{comment}"
