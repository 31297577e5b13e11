"""The secured and the redacted view: created, or changed in place if their definition changed.

Not CREATE OR REPLACE VIEW: Spark drops the view and creates it again, so readers may find none in between, a kill may
leave none, and its grants may be lost.
"""

from pyspark.sql import SparkSession

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.tables.partition import ensure_database


def ensure_view(spark: SparkSession, view: str, select: str) -> str:
    """Make a view show a SELECT.

    Returns:
        What was done: `created`, `changed` or `unchanged`.

    Raises:
        CdiError: INPUT_INVALID where a table has that name.
    """
    ensure_database(spark, view)
    if not spark.catalog.tableExists(view):
        spark.sql(f"CREATE VIEW IF NOT EXISTS {view} AS {select}")
        return "created"
    described = {row["col_name"]: row["data_type"] for row in spark.sql(f"DESCRIBE TABLE EXTENDED {view}").collect()}
    if described.get("Type") != "VIEW":
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{view} is a table, so there can be no view of that name.",
            next_step=f"Move or drop the table {view}, or give the view another name in the definition.",
            detail={"view": view},
        )
    if described.get("View Text") == select:
        return "unchanged"
    spark.sql(f"ALTER VIEW {view} AS {select}")
    return "changed"
