"""An installation with a metastore of its own: `python -m cdi_dagster_tests.spark.tables.installation <folder> …`.

The rest are arguments of publish_tables. For each line on stdin it publishes, with the line as correlation id, or where
the line is `read` prints the rows of the raw table as JSON.
"""

import json
import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from cdi_dagster.local_spark.metastore import local_metastore_conf
from cdi_dagster.spark.tables.job import main
from cdi_dagster_tests.spark.tables.daily_records import RAW


def start_spark(folder: Path) -> SparkSession:
    """Start Spark on the installation's own metastore."""
    os.environ["PYSPARK_PYTHON"] = sys.executable  # of the workers, which write the rows
    settings = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2", **local_metastore_conf(folder)}
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.enableHiveSupport().getOrCreate()


if __name__ == "__main__":
    where, *arguments = sys.argv[1:]
    spark = start_spark(Path(where))
    for line in sys.stdin:
        command = line.strip()
        if command == "read":
            answer: object = sorted(row[0] for row in spark.table(RAW).collect())
        else:
            answer = main([*arguments, "--correlation-id", command])
        print(json.dumps(answer), flush=True)
