"""A Spark of its own on a test's tables: `python -m cdi_dagster_tests.s3a.tables_child <folder> <stop | go on> …`.

The rest are arguments of publish_tables. Prints what readers find and where (moved to `s3a://`), publishes the day
again, and prints what they find and where then, as JSON, a line each. Told to stop, it prints only what readers find,
says so between the first table and the second, and waits to be killed.
"""

import json
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from cdi_dagster.local_spark.metastore import local_metastore_conf
from cdi_dagster.local_spark.s3a_conf import find_s3a_jars, s3a_class_path, s3a_conf_here
from cdi_dagster.spark.tables import publish, statements
from cdi_dagster.spark.tables.job import main
from cdi_dagster.spark.tables.metastore import published_folder
from cdi_dagster.spark.tables.partition import Attempt
from cdi_dagster.storage import Storage
from cdi_dagster_tests.s3a.conftest import pyspark_folder
from cdi_dagster_tests.spark.tables.daily_records import EXPORT_DAY, MANAGED, RAW


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


def start_spark(folder: Path) -> SparkSession:
    os.environ |= s3a_class_path(find_s3a_jars(pyspark_folder()), os.environ)
    settings = {
        "spark.ui.enabled": "false",
        **s3a_conf_here(os.environ),
        **local_metastore_conf(folder / "metastore"),
    }
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.enableHiveSupport().getOrCreate()


def stop_before_managed() -> None:
    publish_attempt = publish.publish_attempt  # type: ignore[attr-defined]

    def publish_or_stop(spark: SparkSession, storage: Storage, attempt: Attempt) -> None:
        if attempt.table.name == MANAGED:
            say("raw is published, managed is not")
            sys.stdin.read()
        publish_attempt(spark, storage, attempt)

    publish.publish_attempt = publish_or_stop  # type: ignore[assignment, attr-defined]


def tables(spark: SparkSession) -> dict[str, list[str]]:
    raw = spark.table(RAW).collect()
    managed = spark.table(MANAGED).collect()
    return {"raw": sorted(row["val"] for row in raw), "managed": sorted(row["audit_id"] for row in managed)}


def locations(spark: SparkSession) -> list[str]:
    """Where the raw table and its partition are, by the metastore."""
    partition = published_folder(spark, RAW, date.fromisoformat(EXPORT_DAY))
    described = {row["col_name"]: row["data_type"] for row in spark.sql(f"DESCRIBE TABLE EXTENDED {RAW}").collect()}
    return [described["Location"], partition or ""]


def move_to_s3a(spark: SparkSession) -> None:
    """Have the raw table where an earlier version has put it."""
    table, partition = (place.replace("s3://", "s3a://") for place in locations(spark))
    spark.sql(statements.set_location(RAW, table))
    spark.sql(statements.set_location(RAW, partition, date.fromisoformat(EXPORT_DAY)))


if __name__ == "__main__":
    where, what, *arguments = sys.argv[1:]
    session = start_spark(Path(where))
    say(tables(session))
    if what == "stop":
        stop_before_managed()
    else:
        move_to_s3a(session)
        say(locations(session))
    exit_code = main(arguments)
    say(tables(session))
    say(locations(session))
    sys.exit(exit_code)
