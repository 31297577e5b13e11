"""The process that Spark forks the Python workers of a local job from (`spark.python.daemon.module`).

Spark's own daemon compiles a zip of pyspark's sources at every start, and each worker imports the job's modules. This
one uses the installed pyspark and imports the job's modules once for all workers.
"""

import sys

if __name__ == "__main__":
    sys.path.sort(key=lambda path: path.endswith(".zip"))

    from pyspark.daemon import manager

    import cdi_dagster.spark.ingest.task  # for the workers
    import cdi_dagster.spark.tables.rows_task  # noqa: F401

    manager()
