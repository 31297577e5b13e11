"""Reads the sample file with the Spark of this environment, in a JVM of the time zone given, and prints what it finds.

python -m cdi_dagster_tests.spark.tables.orc.spark_reader FILE ZONE
"""

import json
import sys

from pyspark.sql import SparkSession

from cdi_dagster_tests.spark.tables.orc.sample_file import SCHEMA, TYPES

FILTERS = (
    "moment < timestamp'1970-01-01 00:00:00'",
    "moment >= timestamp'1969-12-31 23:59:58.5'",
    "moment = timestamp'1970-01-01 00:00:03'",
    "moment < timestamp'1582-10-15 00:00:00'",
    "day < date'1582-10-15'",
    "day >= date'1582-10-15'",
    "day = date'0001-01-01'",
    "long = 9223372036854775807",
    "long < 0",
    "short > 50",
    "number > 0.5",
    "flag",
    "NOT flag",
    "text = 'a'",
    "text IS NULL",
    "nothing IS NOT NULL",
    "nothing IS NULL",
    "amount > 5.5",
)


def main(path: str, zone: str) -> None:
    """Print a JSON object: by reader (vectorised or not) the rows as texts, and by filter the ids found."""
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.extraJavaOptions", f"-Duser.timezone={zone}")
        .config("spark.sql.session.timeZone", zone)
        .getOrCreate()
    )
    found: dict[str, object] = {}
    for vectorised in ("true", "false"):
        spark.conf.set("spark.sql.orc.enableVectorizedReader", vectorised)
        frame = spark.read.schema(SCHEMA).orc(path)
        cast = [f"CAST({name} AS STRING) AS {name}" for name in TYPES if name != "number"]
        found[f"rows {vectorised}"] = [list(row) for row in frame.orderBy("id").selectExpr(*cast).collect()]
        for condition in FILTERS:
            found.setdefault(condition, [])
            ids = sorted(row["id"] for row in frame.where(condition).select("id").collect())
            found[condition].append(ids)  # type: ignore[attr-defined]
    found["aggregates"] = [str(value) for value in frame.selectExpr("count(*)", "min(day)", "max(long)").collect()[0]]
    print(json.dumps(found))
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
