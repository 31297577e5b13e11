"""The rows of a snapshot as DataFrames: reading base and daily rows, and choosing one row for each id.

No row passes through Python and none is collected: only counts are.
"""

import re
from collections.abc import Sequence
from datetime import date
from functools import reduce
from typing import Final

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from cdi_dagster.spark.tables.locations import spark_path
from cdi_dagster.storage import Storage

_ROW_COLUMNS: Final = ("id", "db_type", "val", "id_part")
_ROW: Final = "id string, db_type string, val string, id_part string"
_DAILY_ROW: Final = (
    f"{_ROW}, kafka_partition int, kafka_offset bigint, export_year int, export_month int, export_day int"
)
_MODIFIED: Final = r'"_lastModifiedDateTime":\s*\{\s*"d_date":\s*"(\d{4}-\d\d-\d\d)'
"""In a record's text. A quote within a string is escaped, so it is a key; a record's first, as keys are sorted."""
_GLOB: Final = re.compile(r"([{}\[\]*?\\])")


def base_rows(spark: SparkSession, published: Storage, prefix: str, keys: Sequence[str]) -> DataFrame:
    """Return the rows of a snapshot's files; those of the old system may have columns more."""
    rows = _read(spark, published, prefix, keys, _ROW)
    # Before every day, and without a place in Kafka: it loses to all rows that came after it.
    return rows.select(
        *_ROW_COLUMNS,
        F.lit(0).alias("day"),
        F.lit(None).cast("int").alias("kafka_partition"),
        F.lit(None).cast("bigint").alias("kafka_offset"),
    )


def daily_rows(spark: SparkSession, published: Storage, prefix: str, keys: Sequence[str]) -> DataFrame:
    """Return the rows of days, whose folders lie below `prefix`, with a number that grows with the export day."""
    rows = _read(spark, published, prefix, keys, _DAILY_ROW)
    day = F.col("export_year") * 10_000 + F.col("export_month") * 100 + F.col("export_day")
    return rows.select(*_ROW_COLUMNS, day.alias("day"), "kafka_partition", "kafka_offset")


def all_rows(sources: Sequence[DataFrame]) -> DataFrame:
    """Return the rows of base and days together."""
    return reduce(DataFrame.unionByName, sources)


def latest_rows(rows: DataFrame, *, slices: int) -> DataFrame:
    """Return one row for each id of an id_part, sorted by both.

    A DELETE goes before an INSERT; of two of one type the later export day, then the higher Kafka partition and
    offset. One shuffle and one sort do all of it: `slices` ranges of ids, each of which becomes one file in each
    id_part that it touches.
    """
    by_precedence = Window.partitionBy("id_part", "id").orderBy(
        F.when(F.col("db_type") == "DELETE", 1).otherwise(0).desc(),
        F.col("day").desc(),
        F.col("kafka_partition").desc_nulls_last(),
        F.col("kafka_offset").desc_nulls_last(),
        F.col("val").desc(),  # the same place twice: any, but always the same one
    )
    return (
        rows.repartitionByRange(slices, "id_part", "id")
        .withColumn("precedence", F.row_number().over(by_precedence))
        .where("precedence = 1")
        .select(*_ROW_COLUMNS)
        .sortWithinPartitions("id_part", "id")  # they are: so that Spark does not sort them by id_part alone
    )


def count_by(rows: DataFrame, *columns: str) -> dict[tuple[str, ...], int]:
    """Return how many rows there are of each combination of values."""
    return {tuple(row)[:-1]: row["count"] for row in rows.groupBy(*columns).count().collect()}


def count_modified(rows: DataFrame, *, days: int) -> dict[date, int]:
    """Return how many records were last modified on each of the latest days that any was, by their UTC day."""
    # Not get_json_object: it parses all of a record, which took as long as sorting and writing the row.
    day = F.regexp_extract("val", _MODIFIED, 1)
    by_day = rows.select(day.alias("day")).groupBy("day").count()
    found = by_day.orderBy(F.col("day").desc()).limit(days).collect()
    return {date.fromisoformat(row["day"]): row["count"] for row in reversed(found) if row["day"]}


def _read(spark: SparkSession, published: Storage, prefix: str, keys: Sequence[str], schema: str) -> DataFrame:
    """Read exactly these files; the columns that their folders name are taken as text, not guessed."""
    paths = [_GLOB.sub(r"\\\1", spark_path(published.uri(key))) for key in keys]
    return spark.read.schema(schema).option("basePath", spark_path(published.uri(prefix))).orc(paths)
