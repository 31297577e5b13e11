"""What a table over managed shows of a value, in plain Python: the same as `statements.shown_column` does in SQL."""

from collections.abc import Callable
from hashlib import sha256

from cdi_dagster.core.table_definition import Column, Showing
from cdi_dagster.spark.tables.statements import MASK


def shown_value(column: Column) -> Callable[[object], object]:
    """Return the function from a value of the managed table's column, or None, to what a table shows of it."""
    if column.showing is Showing.KEEP:
        return lambda value: value
    if column.showing is Showing.MASK:
        return lambda value: None if value is None else MASK
    if column.showing is Showing.HASH:
        return lambda value: None if value is None else sha256(str(value).encode()).hexdigest()
    raise ValueError(f"{column.name} is {column.showing}: no table holds such a column")
