"""What spark-submit runs for `build_snapshot`; the program is `cdi_dagster.spark.snapshot.job`."""

import sys

# Spark puts a zip of pyspark's sources first, compiled at every start; the installed pyspark is compiled already.
sys.path.sort(key=lambda path: path.endswith(".zip"))

from cdi_dagster.spark.snapshot.job import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
