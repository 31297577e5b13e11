"""A disk that is full while the parts are written: said so, nothing published, nothing left behind."""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster_tests.spark.ingest_support import SampleDay
from cdi_dagster_tests.spark.worker_processes import python_daemons, python_workers, staged_files

pytestmark = pytest.mark.spark

ROOM_BYTES = 256 * 1024


@contextmanager
def files_that_cannot_grow(spark: SparkSession) -> Iterator[None]:
    """Let no file that Spark's Python workers write grow beyond the room: what a quota does."""
    spark.sparkContext.parallelize(range(2), 2).map(str).collect()  # the processes are there then
    limited = [*python_daemons(), *python_workers()]  # the daemons first: they do not end, and start the others
    assert limited
    before = resource.prlimit(limited[0], resource.RLIMIT_FSIZE)
    for pid in limited:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (ROOM_BYTES, before[1]))
    try:
        yield
    finally:
        for pid in {*limited, *python_workers()}:
            with suppress(ProcessLookupError):  # a worker that has ended since
                resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def a_small_disk(folder: Path) -> Iterator[None]:
    """Mount a file system with that much room, where this process may."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "cdi-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def require_reported_and_cleaned_up(day: SampleDay, spark: SparkSession, fix: str) -> None:
    with pytest.raises(CdiError) as raised:
        day.ingest(spark.sparkContext)
    assert raised.value.failure_class is FailureClass.STORAGE_FULL
    assert day.published.root in raised.value.cause
    assert fix in raised.value.cause
    assert "run the day again" in raised.value.next_step
    assert day.failure_left().to_json() == raised.value.to_json()
    assert day.published_keys() == []
    assert staged_files(day) == []


def test_files_that_cannot_grow_fail_the_day_with_the_fix(file_day: SampleDay, spark: SparkSession) -> None:
    summary = file_day.write(records=2_000, objects=2)
    file_day.pin()
    with files_that_cannot_grow(spark):
        require_reported_and_cleaned_up(file_day, spark, "Raise `ulimit -f`")
    assert file_day.ingest(spark.sparkContext, correlation_id="run-2").published == summary.records


def test_a_full_disk_fails_the_day_with_the_fix(file_day: SampleDay, spark: SparkSession, tmp_path: Path) -> None:
    with a_small_disk(tmp_path / "published"):
        file_day.write(records=2_000, objects=2)
        file_day.pin()
        require_reported_and_cleaned_up(file_day, spark, f"mounted at {tmp_path / 'published'} is full")
