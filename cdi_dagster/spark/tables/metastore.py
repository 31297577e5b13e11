"""The tables and views in the metastore: created as defined, adopted where they exist, changed in place.

A view is never replaced by CREATE OR REPLACE VIEW: Spark drops the view and creates it again, so readers may find none
in between, a kill may leave none, and its grants may be lost. For the same reason, what is a view becomes a table, or
the other way round, only where the definition states so (`Table.replaces`).
"""

import logging
from collections.abc import Callable
from datetime import date
from typing import TypeVar

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.table_definition import PARTITION_COLUMN, Table, TableKind
from cdi_dagster.spark.tables import statements
from cdi_dagster.spark.tables.locations import same_place
from cdi_dagster.spark.tables.statements import identifier

_log = logging.getLogger(__name__)
_Done = TypeVar("_Done")


def require_fits(spark: SparkSession, table: Table) -> None:
    """Return where there is no such table yet, or the one there is can hold the defined columns.

    Raises:
        CdiError: INPUT_INVALID where there is a view of that name, or a table with other partitions, storage or types;
            every column that does not fit is named.
    """
    _fitting(spark, table)


def _fitting(spark: SparkSession, table: Table) -> dict[str, str] | None:
    """Return the details of what there is of that name, or None; raises as `require_fits`."""
    details = _details(spark, table.name)
    if details is None:
        return None
    if details.get("Type") == "VIEW":
        if table.replaces is not TableKind.VIEW:
            raise _other_kind(table, "view")
        return details
    partitioning = [column.name for column in spark.catalog.listColumns(identifier(table.name)) if column.isPartition]
    expected = [PARTITION_COLUMN] if table.is_partitioned else []
    if partitioning != expected:
        by, not_by = (", ".join(columns) or "nothing" for columns in (partitioning, expected))
        raise _not_ours(table, f"is partitioned by {by}, not by {not_by}")
    if "orc" not in details.get("Serde Library", "orc").lower():
        raise _not_ours(table, f"is not stored as ORC (but by {details['Serde Library']})")
    types = _types(spark, table)
    other = [column for column in table.columns if types.get(column.name, column.shown_type) != column.shown_type]
    if other:
        listed = ", ".join(f"{column.name} ({types[column.name]}, defined as {column.shown_type})" for column in other)
        raise _not_ours(table, f"has columns of other types: {listed}")
    return details


def ensure_table(spark: SparkSession, table: Table, *, location: str, database_location: str) -> None:
    """Create the table, or adopt the one there is: append the columns that it lacks, keep its other partitions.

    Args:
        spark: the session.
        table: as defined.
        location: its location; every partition has its own below it.
        database_location: of its database, where that is created too.

    Raises:
        CdiError: as `require_fits`.
    """
    _again_if_refused(lambda: _ensure_table(spark, table, location, database_location))


def _ensure_table(spark: SparkSession, table: Table, location: str, database_location: str) -> None:
    details = _fitting(spark, table)
    ensure_database(spark, table, database_location)
    if details and details.get("Type") == "VIEW":
        _log.info("%s was a view and becomes a table", table.name)
        spark.sql(f"DROP VIEW {identifier(table.name)}")
        details = None
    if details is None:
        spark.sql(statements.create_table(table, location))
        return
    types = _types(spark, table)
    missing = [column for column in table.columns if column.name not in types]
    if missing:
        _log.info("%s gets the new columns %s", table.name, ", ".join(column.name for column in missing))
        spark.sql(statements.add_columns(table.name, missing))
    undefined = sorted(set(types) - {column.name for column in table.columns} - {PARTITION_COLUMN})
    if undefined:
        _log.warning("%s has columns that are not defined, null from now on: %s", table.name, ", ".join(undefined))
    present = details.get("Location", location)
    if same_place(present, location) and present.partition(":")[0] != location.partition(":")[0]:
        spark.sql(statements.set_location(table.name, location))


def ensure_view(spark: SparkSession, view: Table, select: str, *, database_location: str) -> str:
    """Make a view show a SELECT.

    Returns:
        What was done: `created`, `changed` or `unchanged`.

    Raises:
        CdiError: INPUT_INVALID where a table has that name, unless the definition states that the view replaces it.
    """
    return _again_if_refused(lambda: _ensure_view(spark, view, select, database_location))


def _ensure_view(spark: SparkSession, view: Table, select: str, database_location: str) -> str:
    ensure_database(spark, view, database_location)
    details = _details(spark, view.name)
    if details and details.get("Type") != "VIEW":
        if view.replaces is not TableKind.TABLE:
            raise _other_kind(view, "table")
        if details.get("Type") != "EXTERNAL":
            raise _not_ours(view, "is not external, so its files would go with it: no view replaces it")
        _log.info("%s was a table and becomes a view; its files stay", view.name)
        spark.sql(f"DROP TABLE {identifier(view.name)}")
        details = None
    if details is None:
        spark.sql(f"CREATE VIEW IF NOT EXISTS {identifier(view.name)} AS {select}")
        return "created"
    if details.get("View Text") == select:
        return "unchanged"
    spark.sql(f"ALTER VIEW {identifier(view.name)} AS {select}")
    return "changed"


def _again_if_refused(change: Callable[[], _Done]) -> _Done:
    """Make a change; once more where the metastore refuses it, as the step of another day may just have made it."""
    try:
        return change()
    except AnalysisException as error:
        _log.info("The metastore refused a change, which is looked at again: %s", error)
        return change()


def ensure_database(spark: SparkSession, table: Table, location: str) -> None:
    """Create the database of a table or view if there is none (otherwise the job's role needs no right to create)."""
    if not spark.catalog.databaseExists(table.database):
        # Without a location it lies in the default warehouse: on EMR the HDFS of a cluster that ends.
        spark.sql(statements.create_database(table.database, location))


def published_folder(spark: SparkSession, table: str, export_day: date | None) -> str | None:
    """Return the location in the metastore of a partition, or None where there is none; of the table without a day."""
    if export_day is None:
        return (_details(spark, table) or {}).get("Location")
    selected = statements.partition(export_day)
    if not spark.sql(f"SHOW PARTITIONS {identifier(table)} {selected}").take(1):
        return None
    for row in spark.sql(f"DESCRIBE TABLE EXTENDED {identifier(table)} {selected}").collect():
        if row["col_name"] == "Location":
            return str(row["data_type"])
    return None


def _details(spark: SparkSession, table: str) -> dict[str, str] | None:
    """Return what DESCRIBE states of a table or view beside its columns, or None where there is none."""
    if not spark.catalog.tableExists(identifier(table)):
        return None
    rows = spark.sql(f"DESCRIBE TABLE EXTENDED {identifier(table)}").collect()
    start = next(number for number, row in enumerate(rows) if row["col_name"].startswith("# Detailed Table"))
    return {row["col_name"]: row["data_type"] for row in rows[start:]}


def _types(spark: SparkSession, table: Table) -> dict[str, str]:
    schema = spark.table(identifier(table.name)).schema
    return {field.name.lower(): field.dataType.simpleString() for field in schema.fields}


def _other_kind(table: Table, present: str) -> CdiError:
    return CdiError(
        FailureClass.INPUT_INVALID,
        f"{table.name} is a {present} in the metastore, but a {table.kind} in the definition.",
        next_step=f'If the {table.kind} is to take its place, add "replaces": "{present}" to {table.name} in the '
        f"definition (an external table's files stay), then publish the days that it is to show: cdi tables --from DAY "
        f'--to DAY, or a backfill in the Dagster UI. If not, write "kind": "{present}".',
        detail={"table": table.name},
    )


def _not_ours(table: Table, what: str) -> CdiError:
    return CdiError(
        FailureClass.INPUT_INVALID,
        f"The table {table.name} {what}.",
        next_step=f"Change the definition to fit, or drop {table.name} yourself: the files of an external table stay, "
        "and every day's tables can be published again.",
        detail={"table": table.name},
    )
