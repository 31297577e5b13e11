"""A Spark program that fails in an executor, with an error that quotes the row it failed on, as Spark's own do."""

import sys

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession
from pyspark.sql import functions as F


def main() -> int:
    with SparkSession.builder.getOrCreate() as spark:
        # Put together by the executor, so that it is nowhere but in the row; over two lines, as a payload may be.
        row = F.concat(F.lit("row\n at "), F.lit("Wolper"), F.lit("tinger "), F.col("id"))
        try:
            spark.range(1).select(F.raise_error(row)).collect()
        except Py4JJavaError:
            return 1  # its own words quote nothing; what Spark logs is what is looked at
    return 0


if __name__ == "__main__":
    sys.exit(main())
