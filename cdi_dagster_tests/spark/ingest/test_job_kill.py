"""Killed in the middle: a worker, or all of the job. The published day is whole, or as it was before."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from cdi_dagster.core.spark_jobs import INGEST_DAILY
from cdi_dagster.local_spark.spark_submit import (
    SparkProcessConfig,
    require_java,
    spark_environment,
    spark_submit_command,
)
from cdi_dagster_tests.spark.ingest_support import SampleDay
from cdi_dagster_tests.spark.scripted_key_service import ScriptedKeyService, slow
from cdi_dagster_tests.spark.worker_processes import processes, python_workers, staged_files

QUICK_JVM = {"SPARK_SUBMIT_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"}  # it lives for seconds

pytestmark = [pytest.mark.spark, pytest.mark.kill]


def test_a_killed_worker_is_replaced_and_nothing_is_doubled(file_day: SampleDay, spark: SparkSession) -> None:
    summary = file_day.write(records=600, objects=24)
    file_day.pin()
    killed: list[int] = []
    with ScriptedKeyService(*[slow(0)] * 12, afterwards=slow(0.3)) as service:
        file_day.dks_url = service.url

        def kill_one_that_has_written() -> None:
            while len(service.asked) < 16:
                time.sleep(0.05)
            for pid in python_workers()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

        killer = threading.Thread(target=kill_one_that_has_written)
        killer.start()
        report = file_day.ingest(spark.sparkContext)
        killer.join(timeout=30)
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


def kill_at(moment: str, pause_seconds: float, day: SampleDay, folder: Path) -> None:
    """Run the job as spark-submit does, and kill all its processes a moment after it says a word."""
    command = spark_submit_command(
        INGEST_DAILY,
        day.arguments(correlation_id="again"),
        config=SparkProcessConfig(work_folder=folder, master="local[2]"),
    )
    job = subprocess.Popen(
        command,
        env=spark_environment(require_java()) | QUICK_JVM,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert job.stdout is not None
    try:
        said = next((line for line in job.stdout if f"reporting: {moment}" in line), None)
        assert said is not None, "the job ended before it could be killed"
        time.sleep(pause_seconds)
    finally:
        for pid, _, session, _ in processes():
            if session == job.pid:
                os.kill(pid, signal.SIGKILL)
        job.wait(timeout=30)
        job.stdout.close()
