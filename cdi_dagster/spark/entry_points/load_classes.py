"""What spark-submit runs so that Java can archive the classes of our jobs (`cdi_dagster.local_spark.class_archive`).

It uses a little of each: Python workers and an accumulator, an external ORC table in a metastore, a partition, a view.
"""

import sys
from pathlib import Path

from pyspark.sql import SparkSession


def main(folder: Path) -> None:
    """Load the classes; what it writes below the folder is discarded."""
    spark = SparkSession.builder.enableHiveSupport().getOrCreate()
    spark.sparkContext.parallelize(range(2), 2).mapPartitions(list).collect()
    location = (folder / "table").as_uri()
    spark.sql("CREATE DATABASE classes")
    columns = "(val STRING) PARTITIONED BY (date_str STRING)"
    spark.sql(f"CREATE EXTERNAL TABLE classes.t {columns} STORED AS ORC LOCATION '{location}'")
    spark.createDataFrame([("a",)], "val STRING").write.orc(f"{location}/1")
    spark.sql(f"ALTER TABLE classes.t ADD PARTITION (date_str = '1') LOCATION '{location}/1'")
    spark.sql("CREATE VIEW classes.v AS SELECT val, date_str FROM classes.t")
    spark.sql("SELECT count(*) FROM classes.v WHERE date_str = '1'").collect()
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
