"""The process of a Spark job: starts and stops Spark, and ends the job on SIGTERM.

For the job modules only; no logic of a job.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.spark_jobs import LOCAL_METASTORE
from cdi_dagster.spark.job_failures import failure_of


@contextmanager
def spark_context(name: str, *, encrypts_shuffles: bool = False) -> Iterator[SparkContext]:
    """Start Spark as spark-submit configured it, and stop it at the end; a running one is left running.

    Args:
        name: on Spark's pages.
        encrypts_shuffles: whether what Spark writes to local disks is encrypted, with a key that only it has.
    """
    running = SparkContext._active_spark_context
    if running is not None:
        yield running
        return
    try:
        conf = SparkConf().setAppName(name)
        if encrypts_shuffles:
            conf.set("spark.io.encryption.enabled", "true")
        spark = SparkContext(conf=conf)
    except (PySparkException, Py4JError, OSError) as error:
        raise _not_started(error) from error
    try:
        yield spark
    finally:
        _stop(spark)


@contextmanager
def spark_session(name: str) -> Iterator[tuple[SparkSession, AbstractContextManager[None] | None]]:
    """Start Spark with the metastore that spark-submit configured, and stop it; a running one stays running.

    Yields:
        The session, and what to enter while it uses its catalogue, where that is the local metastore.
    """
    running = SparkSession.getActiveSession()
    try:
        spark = running or SparkSession.builder.appName(name).enableHiveSupport().getOrCreate()
    except (PySparkException, Py4JError, OSError) as error:
        raise _not_started(error) from error
    folder = None if running else spark.conf.get(LOCAL_METASTORE, None)
    try:
        yield spark, _local_catalogue(spark, Path(folder)) if folder else None
    finally:
        if running is None:
            spark.stop()


@contextmanager
def _local_catalogue(spark: SparkSession, folder: Path) -> Iterator[None]:
    """Hold the local metastore. Spark opens it when it first uses the catalogue; it has to be closed for the next."""
    # Not at the top: the bundle for clusters, which have no local metastore, is without it.
    from cdi_dagster.local_spark.metastore import local_metastore_lock

    with local_metastore_lock(folder):
        try:
            yield
        finally:
            # Derby's way to be shut down is a connection that it refuses.
            java: Any = spark._jvm
            with suppress(Py4JError):
                java.java.sql.DriverManager.getConnection("jdbc:derby:;shutdown=true")


def _not_started(error: Exception) -> CdiError:
    return CdiError(
        FailureClass.LAUNCH_FAILED,
        f"Spark did not start: {failure_of(error).cause}",
        next_step="Read in the log what Spark lacked (Java, memory, master), then run again.",
    )


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
