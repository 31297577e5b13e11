"""The process of a Spark job: starts and stops Spark, and ends the job on SIGTERM.

For the job modules only; no logic of a job.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.job_failures import failure_of


@contextmanager
def spark_context(name: str) -> Iterator[SparkContext]:
    """Start Spark as spark-submit configured it, and stop it at the end; a running one is left running."""
    running = SparkContext._active_spark_context
    if running is not None:
        yield running
        return
    try:
        spark = SparkContext(conf=SparkConf().setAppName(name))
    except (PySparkException, Py4JError, OSError) as error:
        raise CdiError(
            FailureClass.LAUNCH_FAILED,
            f"Spark did not start: {failure_of(error).cause}",
            next_step="Read in the log what Spark lacked (Java, memory, master), then run again.",
        ) from error
    try:
        yield spark
    finally:
        _stop(spark)


def _stop(spark: SparkContext) -> None:
    """Stop Spark without waiting for its accumulator server, which checks only once a second whether to stop."""
    server, spark._accumulatorServer = spark._accumulatorServer, None  # type: ignore[assignment]
    spark.stop()
    threading.Thread(target=server.shutdown, daemon=True).start()


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that everything is cleaned up."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
