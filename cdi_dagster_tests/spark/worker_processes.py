"""Spark's Python workers as processes, and the files of a job that is not over: what tests kill, limit, look for."""

import os
from pathlib import Path

from cdi_dagster_tests.processes import descendants_of, processes
from cdi_dagster_tests.spark.ingest_support import SampleDay


def python_daemons() -> list[int]:
    """The processes of this test process's own Spark that fork its workers."""
    found = [process for process in descendants_of(os.getpid()) if "pyspark.daemon" in process.command]
    return [process.pid for process in found if process.parent not in {other.pid for other in found}]


def python_workers() -> list[int]:
    """What the daemons forked."""
    daemons = python_daemons()
    return [process.pid for process in processes() if process.parent in daemons]


def staged_files(day: SampleDay) -> list[str]:
    staging = Path(day.published.root.removeprefix("file://")) / ".cdi-staging"
    return [str(path) for path in staging.rglob("*") if path.is_file() and "locks" not in path.parts]
