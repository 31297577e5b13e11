"""The SQL text of the tables and views. Pure: from names, columns and locations to a statement.

Names have been checked by `definition`; every other text is quoted here.
"""

from collections.abc import Iterable
from datetime import date

from cdi_dagster.spark.tables.definition import PARTITION_COLUMN, Column, Showing

MASK = "REDACTED"


def literal(text: str) -> str:
    """Return a text as an SQL literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def create_table(table: str, columns: Iterable[tuple[str, str, str]], location: str) -> str:
    """Create an external, partitioned ORC table. `columns` are (name, type, comment)."""
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {table} ({', '.join(_column(*column) for column in columns)}) "
        f"PARTITIONED BY ({PARTITION_COLUMN} STRING COMMENT 'Export day') "
        f"STORED AS ORC LOCATION {literal(location)} TBLPROPERTIES ('orc.compress' = 'ZLIB')"
    )


def add_columns(table: str, columns: Iterable[tuple[str, str, str]]) -> str:
    """Append columns to a table; older partitions read as null in them."""
    return f"ALTER TABLE {table} ADD COLUMNS ({', '.join(_column(*column) for column in columns)})"


def partition(export_day: date) -> str:
    """Name one partition in a statement."""
    return f"PARTITION ({PARTITION_COLUMN} = '{export_day}')"


def add_partition(table: str, export_day: date, folder: str) -> str:
    """Add a partition that does not exist yet, in one step."""
    return f"ALTER TABLE {table} ADD IF NOT EXISTS {partition(export_day)} LOCATION {literal(folder)}"


def set_location(table: str, export_day: date, folder: str) -> str:
    """Point a partition at another folder, in one step."""
    return f"ALTER TABLE {table} {partition(export_day)} SET LOCATION {literal(folder)}"


def view_select(managed: str, columns: Iterable[tuple[Column, Showing]]) -> str:
    """Return the SELECT of a view over the managed table: its columns as shown, then the partition column."""
    shown = [_shown(column, showing) for column, showing in columns]
    return f"SELECT {', '.join([*shown, PARTITION_COLUMN])} FROM {managed}"  # noqa: S608 (names are checked)


def _shown(column: Column, showing: Showing) -> str:
    if showing is Showing.KEEP:
        return column.name
    if showing is Showing.MASK:
        return f"CASE WHEN {column.name} IS NULL THEN NULL ELSE {literal(MASK)} END AS {column.name}"
    if showing is Showing.HASH:
        return f"sha2(CAST({column.name} AS STRING), 256) AS {column.name}"
    raise ValueError(f"{column.name} is {showing}: a view holds no such column")


def _column(name: str, kind: str, comment: str) -> str:
    return f"{name} {kind.upper()}" + (f" COMMENT {literal(comment)}" if comment else "")
