"""Plain snapshot: the baseline, a Spark program that makes a snapshot in the obvious way.

Base and days together, `row_number` over a window by id, the first row of each, written by id_part. It does less than
the job: nothing is counted or compared, nothing sampled, no whole-or-absent publication, no order in an id_part. Run by
spark-submit.
"""

import argparse
import sys
from collections.abc import Sequence

from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F  # noqa: N812 (the usual name)

_ROW = "id string, db_type string, val string, id_part string"
_DAY = "export_year int, export_month int, export_day int, kafka_partition int, kafka_offset bigint"


def main(argv: Sequence[str]) -> int:
    """Make the snapshot of a base and its days."""
    parser = argparse.ArgumentParser(prog="plain_snapshot", description=__doc__)
    parser.add_argument("--base", required=True, help="folder of the base")
    parser.add_argument("--days", required=True, help="folder of all days")
    parser.add_argument("--output", required=True, help="folder of the snapshot")
    found = parser.parse_args(list(argv))
    spark = SparkSession.builder.appName("plain snapshot").getOrCreate()
    base = spark.read.schema(_ROW).orc(found.base)
    days = spark.read.schema(f"{_ROW}, {_DAY}").orc(found.days)
    export_day = F.col("export_year") * 10_000 + F.col("export_month") * 100 + F.col("export_day")
    precedence = Window.partitionBy("id").orderBy(
        (F.col("db_type") == "DELETE").desc(),
        F.col("day").desc_nulls_last(),
        F.col("kafka_partition").desc_nulls_last(),
        F.col("kafka_offset").desc_nulls_last(),
    )
    rows = days.withColumn("day", export_day).unionByName(base, allowMissingColumns=True)
    latest = rows.withColumn("number", F.row_number().over(precedence)).where("number = 1")
    written = latest.select("id", "db_type", "val", "id_part").write.partitionBy("id_part")
    written.option("compression", "zlib").orc(found.output)
    spark.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
