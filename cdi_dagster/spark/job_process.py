"""The process of a Spark job: how Spark starts and stops in it, and how SIGTERM ends it.

For the job modules only; nothing of what a job does.
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
    """Start Spark as spark-submit configured it, and stop it at the end; one that runs already is left running."""
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
            next_step="Read the log for what Spark missed (Java, memory, master), then run again.",
        ) from error
    try:
        yield spark
    finally:
        _stop(spark)


def _stop(spark: SparkContext) -> None:
    """Stop Spark, but wait for nothing that only looks once a second whether it is to end: its accumulator server."""
    server, spark._accumulatorServer = spark._accumulatorServer, None  # type: ignore[assignment]
    spark.stop()
    threading.Thread(target=server.shutdown, daemon=True).start()


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """Let SIGTERM end the job by an exception, so that everything begun is cleaned up on the way out."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
