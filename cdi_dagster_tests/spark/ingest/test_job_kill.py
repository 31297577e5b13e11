"""Killed in the middle: a worker, or all of the job. The published day is whole, or as it was before."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.spark_jobs import INGEST_DAILY
from cdi_dagster.ingestion.ingestion_lease import discard_after_failure
from cdi_dagster.local_spark.java import find_java
from cdi_dagster.local_spark.spark_submit import SparkProcessConfig, spark_environment, spark_submit_command
from cdi_dagster.storage.lease import Lease
from cdi_dagster_tests.processes import kill_session
from cdi_dagster_tests.spark.ingest_support import SampleDay
from cdi_dagster_tests.spark.scripted_key_service import ScriptedKeyService, slow
from cdi_dagster_tests.spark.worker_processes import python_workers, staged_files
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, wait_until

QUICK_JVM = {"SPARK_SUBMIT_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"}  # it lives for seconds

pytestmark = [pytest.mark.spark, pytest.mark.kill]


def test_a_killed_worker_is_replaced_and_nothing_is_doubled(file_day: SampleDay, spark: SparkSession) -> None:
    summary = file_day.write(records=600, objects=24)
    file_day.pin()
    killed: list[int] = []
    with ScriptedKeyService(*[slow(0)] * 12, afterwards=slow(0.3)) as service:
        file_day.dks_url = service.url

        def kill_one_that_has_written() -> None:
            wait_until(lambda: len(service.requests) >= 16, "somebody has written")
            for pid in python_workers():
                with suppress(ProcessLookupError):  # it has ended by itself: another one
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    break

        killer = threading.Thread(target=kill_one_that_has_written)
        killer.start()
        report = file_day.ingest(spark.sparkContext)
        killer.join(PATIENCE_SECONDS)
    assert killed
    assert report.published == summary.records
    assert file_day.records().total() == summary.records
    assert max(file_day.records().values()) == 1
    assert staged_files(file_day) == []


def test_a_job_killed_while_it_publishes_again_leaves_the_day_whole_or_as_before(
    file_day: SampleDay, spark: SparkSession, tmp_path: Path
) -> None:
    file_day.write(records=400, objects=8, seed=1)
    file_day.pin()
    file_day.ingest(spark.sparkContext, correlation_id="before")
    before = file_day.records()
    shutil.rmtree(tmp_path / "corporate")
    file_day.write(records=500, objects=8, seed=2)
    file_day.pin()

    found = []
    pauses = random.Random(20230326)
    for moment in ("Reading", "Publishing", "Publishing"):
        kill_at(moment, pauses.uniform(0, 0.02 if moment == "Publishing" else 1.0), file_day, tmp_path)
        found.append(file_day.records())  # whole by its own mark

    report = file_day.ingest(spark.sparkContext, correlation_id="again")
    after = file_day.records()
    assert report.published == after.total() == 500
    assert not after & before
    assert all(records in (before, after) for records in found)
    assert staged_files(file_day) == []


@pytest.mark.any_spark
def test_what_a_killed_driver_wrote_does_not_stay(file_day: SampleDay, spark: SparkSession, tmp_path: Path) -> None:
    """Not after the step in the hands of whoever holds the day's lease, and else not after the next run."""
    file_day.write(records=600, objects=24)
    file_day.pin()
    kill_while_it_writes(file_day, tmp_path)
    day = file_day.collection.on(file_day.storage_day)
    lease = Lease(file_day.published, "_control/lease.json", "run-1")
    with lease, pytest.raises(CdiError), discard_after_failure(file_day.published, day, lease):
        raise CdiError(FailureClass.CLUSTER_LOST, "SIGKILL ended the Spark process from outside.")
    assert staged_files(file_day) == []

    kill_while_it_writes(file_day, tmp_path)
    file_day.ingest(spark.sparkContext, correlation_id="another")
    assert staged_files(file_day) == []


def kill_while_it_writes(day: SampleDay, folder: Path) -> None:
    """Kill the job once it has written records and before it publishes: it waits for the last keys then."""
    url = day.dks_url
    with ScriptedKeyService(*[slow(0)] * 12, afterwards=slow(8)) as service:
        day.dks_url = service.url
        with spark_job(day, folder) as job:
            wait_until(lambda: staged_files(day) or job.poll() is not None, "the job has written something")
            assert job.poll() is None, f"the job ended before it could be killed: {_output(job)}"
    day.dks_url = url
    assert staged_files(day)
    assert day.mark() is None


def kill_at(moment: str, pause_seconds: float, day: SampleDay, folder: Path) -> None:
    """Run the job as spark-submit does, and kill all its processes a moment after it logs a word."""
    with spark_job(day, folder) as job:
        assert job.stdout is not None
        logged = next((line for line in job.stdout if f"reporting: {moment}" in line), None)
        assert logged is not None, "the job ended before it could be killed"
        time.sleep(pause_seconds)


def _output(job: "subprocess.Popen[str]") -> str:
    assert job.stdout is not None
    return "".join(job.stdout.readlines()[-30:])


@contextmanager
def spark_job(day: SampleDay, folder: Path) -> "Iterator[subprocess.Popen[str]]":
    """Start the job as spark-submit does, and kill all its processes after the block."""
    command = spark_submit_command(
        INGEST_DAILY,
        # The slow key service of these tests is slower still on a machine at work: the job waits for it.
        day.arguments("--dks-retry-budget-seconds", str(round(PATIENCE_SECONDS)), correlation_id="again"),
        config=SparkProcessConfig(work_folder=folder, master="local[2]"),
    )
    job = subprocess.Popen(
        command,
        env=spark_environment(find_java().path) | QUICK_JVM,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert job.stdout is not None
    try:
        yield job
    finally:
        kill_session(job.pid)
        job.wait(PATIENCE_SECONDS)
        job.stdout.close()
