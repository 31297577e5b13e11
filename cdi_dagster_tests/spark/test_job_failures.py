"""An unexpected error of Spark in a failure: its kind, never the row it failed on."""

import os
from typing import NoReturn

import pytest
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from cdi_dagster.core.failures import FailureClass
from cdi_dagster.spark.job_failures import failure_of
from cdi_dagster.storage import StorageUnavailableError, TransientStorageError

LOST_TASK = "Job aborted due to stage failure: Task 0 in stage 1.0 failed 4 times: Lost task 0.3 in stage 1.0 (TID 4): "
LOST_EXECUTOR = LOST_TASK + "ExecutorLostFailure (executor 1 exited caused by one of the running tasks) Reason: "
KILLED = LOST_EXECUTOR + "Container killed by YARN for exceeding physical memory limits. 5 GB of 4 GB used."
IN_A_WORKER = LOST_TASK + "org.apache.spark.api.python.PythonException: Traceback (most recent call last):\n  ...\n"
BUSY = "cdi_dagster.storage.interface.TransientStorageError: Could not read s3://b/k: S3 answered SlowDown"
FULL = "cdi_dagster.storage.interface.StorageFullError: Could not write /data/x: no space"
FETCH_FAILED = (
    "ShuffleMapStage 5 has failed the maximum allowable number of times: 4. Most recent failure reason:\n"
    "org.apache.spark.shuffle.FetchFailedException: "
)
NO_SPACE = "No space left on device"


@pytest.mark.parametrize(
    ("text", "expected", "cause"),
    [
        (KILLED, FailureClass.OUT_OF_MEMORY, "5 GB of 4 GB"),
        ("Container killed by YARN for exceeding memory limits. 5 GB of 4 GB", FailureClass.OUT_OF_MEMORY, "5 GB of"),
        ("java.lang.OutOfMemoryError: Java heap space", FailureClass.OUT_OF_MEMORY, "Java heap space"),
        (f"{IN_A_WORKER}MemoryError\n\n\tat org", FailureClass.OUT_OF_MEMORY, "MemoryError"),
        (f"{IN_A_WORKER}pyarrow.lib.ArrowMemoryError: malloc of 9\n", FailureClass.OUT_OF_MEMORY, "malloc of 9"),
        (f"{LOST_EXECUTOR}Slave lost", FailureClass.CLUSTER_LOST, "Slave lost"),
        (f"{LOST_TASK}Python worker exited unexpectedly (crashed)", FailureClass.CLUSTER_LOST, "(crashed)"),
        (
            f"{FETCH_FAILED}Failed to connect to a/10.0.0.1:7337\n\tat org",
            FailureClass.CLUSTER_LOST,
            "FetchFailedException",
        ),
        (
            f"{FETCH_FAILED}Error\n\tat org\nCaused by: java.io.IOException: {NO_SPACE}\n\tat",
            FailureClass.STORAGE_FULL,
            "A disk is full",
        ),
        (
            f"{LOST_TASK}org.apache.spark.memory.SparkOutOfMemoryError: Error while calling spill() on x : {NO_SPACE}",
            FailureClass.STORAGE_FULL,
            "A disk is full",
        ),
        ("Job 0 cancelled because SparkContext was shut down", FailureClass.CLUSTER_LOST, "Spark itself ended"),
        (f"{IN_A_WORKER}{BUSY}\n\n\tat org", FailureClass.STORAGE_UNAVAILABLE, "Could not read s3://b/k"),
        (f"{IN_A_WORKER}{FULL}\n\n\tat org", FailureClass.STORAGE_FULL, "Could not write /data/x"),
        (f"{IN_A_WORKER}OSError: {NO_SPACE}\n\n{FULL}\n\n\tat", FailureClass.STORAGE_FULL, "Could not write /data/x"),
        ("something else", FailureClass.JOB_FAILED, "something else"),
        ("Metastore: Connection refused", FailureClass.JOB_FAILED, "Connection refused"),
    ],
)
def test_an_error_of_spark_gets_its_class_from_its_text(text: str, expected: FailureClass, cause: str) -> None:
    failure = failure_of(RuntimeError(text))
    assert failure.failure_class is expected
    assert cause in failure.cause


def test_an_error_of_python_gets_its_class_from_its_type() -> None:
    for lost in (Py4JNetworkError("Answer from Java side is empty"), ConnectionRefusedError(111, "Connection refused")):
        assert failure_of(lost).failure_class is FailureClass.CLUSTER_LOST
    assert failure_of(MemoryError()).failure_class is FailureClass.OUT_OF_MEMORY
    assert failure_of(StorageUnavailableError("worker lost")).failure_class is FailureClass.JOB_FAILED


@pytest.mark.spark
def test_what_a_worker_dies_of_arrives_in_the_text_of_spark(spark: SparkSession) -> None:
    def crash(_: int) -> NoReturn:
        os._exit(3)

    def run_out_of_memory(_: int) -> NoReturn:
        raise MemoryError

    def find_s3_busy(_: int) -> NoReturn:
        raise TransientStorageError("Could not read s3://b/k: S3 answered SlowDown")

    classes = {
        crash: FailureClass.CLUSTER_LOST,
        run_out_of_memory: FailureClass.OUT_OF_MEMORY,
        find_s3_busy: FailureClass.STORAGE_UNAVAILABLE,
    }
    for work, expected in classes.items():
        with pytest.raises(Py4JError) as raised:
            spark.sparkContext.parallelize([1], 1).map(work).collect()
        assert failure_of(raised.value).failure_class is expected


@pytest.mark.spark
def test_an_error_within_a_task_is_reported_by_its_kind_without_the_value_it_quotes(spark: SparkSession) -> None:
    rows = spark.createDataFrame([("Wolpertinger",)], "val string").coalesce(1)
    quoting: dict[tuple[str, ...], Column] = {  # as Spark 3.5 calls it, and as Spark 4 does
        ("RuntimeException", "USER_RAISED_EXCEPTION"): F.raise_error(F.col("val")),
        ("DateTimeParseException", "CANNOT_PARSE_TIMESTAMP"): F.to_timestamp(
            F.concat(F.lit("2023-03-26 "), "val"), "yyyy-MM-dd"
        ),
    }
    for kinds, column in quoting.items():
        with pytest.raises((Py4JError, PySparkException)) as raised:
            rows.select(column.alias("x")).collect()
        assert "Wolpertinger" in str(raised.value)
        failure = failure_of(raised.value)
        assert failure.failure_class is FailureClass.JOB_FAILED
        assert any(kind in failure.cause for kind in kinds)
        assert "Wolpertinger" not in str(failure.to_json())


@pytest.mark.spark
def test_an_error_of_planning_keeps_its_sentence(spark: SparkSession) -> None:
    with pytest.raises(PySparkException) as raised:
        spark.read.json("file:///nowhere/at/all")
    assert "file:/nowhere/at/all" in failure_of(raised.value).cause
