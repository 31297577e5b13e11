"""The published daily records that tables are made from: exactly the parts that their mark names."""

from pyspark.sql import DataFrame, SparkSession

from cdi_dagster.published.mark import Mark
from cdi_dagster.spark.tables.locations import escape_glob, spark_path
from cdi_dagster.spark.tables.transforms import RAW_SCHEMA
from cdi_dagster.storage import Storage


def read_records(spark: SparkSession, published: Storage, records: Mark) -> DataFrame:
    """Return the records as lines in the column `val`, from exactly the marked parts."""
    if not records.parts:
        return spark.createDataFrame([], RAW_SCHEMA)
    paths = [escape_glob(spark_path(published.uri(part.key))) for part in records.parts]
    # A line ends at \n only: by default a lone \r in a record would end it too.
    return spark.read.option("lineSep", "\n").text(paths).toDF("val")
