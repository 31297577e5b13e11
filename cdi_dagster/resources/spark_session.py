"""A Spark session on the tables of this installation, for assets of one's own (docs/extending.md).

Our own steps do not use it: they run as processes of their own. Needs the extra `spark` (pyspark and dagster-pyspark),
so nothing else imports this module.
"""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_pyspark import LazyPySparkResource
from pydantic import PrivateAttr
from pyspark import SparkContext

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.local_spark.java import find_java
from cdi_dagster.local_spark.metastore import local_metastore_lock
from cdi_dagster.local_spark.s3a_conf import find_s3a_jars
from cdi_dagster.local_spark.spark_submit import pyspark_folder, scratch_conf, spark_conf, spark_environment
from cdi_dagster.settings import Settings, load_settings

_END_SECONDS = 30.0


class TablesSparkResource(LazyPySparkResource):
    """A Spark session with the metastore and the storage of this installation, started when it is first used.

    The local metastore takes one process at a time: the session waits for a step that has it, and holds it until the
    run ends. Make an asset that uses it depend on the tables that it reads.

    Attributes:
        spark_config: Spark settings.
        metastore_folder: of the local Hive metastore.
        scratch_folder: for what Spark and S3A write in passing; it is there for us alone, as long as the session is.
        jars: for S3, on the class path behind Spark's own.
    """

    metastore_folder: str
    scratch_folder: str
    jars: list[str] = []
    _held: ExitStack | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, settings: Settings | None = None) -> "TablesSparkResource":
        """Return the resource for an installation; by default that of the environment.

        Raises:
            CdiError: LAUNCH_FAILED where this installation runs Spark on EMR, or Spark or its jars are missing here.
        """
        settings = settings or load_settings()
        if settings.deployment != "local":
            raise CdiError(
                FailureClass.LAUNCH_FAILED,
                "The tables of this installation are in the catalog of its clusters, not in one that Spark has here.",
                next_step="Read them there, for example with Athena.",
            )
        needs_s3a = settings.published_root.startswith("s3://")
        jars = find_s3a_jars(pyspark_folder(), settings.local_spark.s3a_jars) if needs_s3a else ()
        scratch = settings.local_spark.work_folder / "assets"
        conf = scratch_conf(scratch) | spark_conf(settings.local_spark, needs_s3a=needs_s3a)
        conf |= {
            "spark.master": settings.spark_master,
            "spark.driver.memory": settings.spark_driver_memory,
            "spark.app.name": "assets on the tables",
            "spark.sql.catalogImplementation": "hive",
        }
        return cls(
            spark_config=conf,
            metastore_folder=str(settings.metastore_path),
            scratch_folder=str(scratch),
            jars=[str(jar) for jar in jars],
        )

    @property
    def spark_session(self) -> Any:
        """The session.

        Raises:
            CdiError: LAUNCH_FAILED where there is no Java, or another process holds the metastore for too long.
        """
        if self._held is None:
            environment = spark_environment(find_java().path, [Path(jar) for jar in self.jars])
            with ExitStack() as held:
                held.enter_context(local_metastore_lock(Path(self.metastore_folder)))
                os.environ.update(environment)
                os.environ.pop("JAVA_HOME", None)  # the choice is on PATH
                _make_empty(Path(self.scratch_folder))
                held.callback(shutil.rmtree, self.scratch_folder, ignore_errors=True)
                held.callback(_end_spark)
                session = super().spark_session
                self._held = held.pop_all()
            return session
        return super().spark_session

    @property
    def spark_context(self) -> Any:
        """The session's context."""
        return self.spark_session.sparkContext

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End Spark and let others have the metastore."""
        if self._held is not None:
            self._held.close()
            self._held = None


def _make_empty(folder: Path) -> None:
    """Make a folder for us alone, without what a killed process left in it: who has the metastore uses it alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)


def _end_spark() -> None:
    """Stop Spark and its JVM: the JVM, not the session, is what holds the database of the metastore."""
    if SparkContext._active_spark_context is not None:
        SparkContext._active_spark_context.stop()
    gateway = SparkContext._gateway
    if gateway is not None:
        gateway.shutdown()
        gateway.proc.stdin.close()  # which ends the JVM
        gateway.proc.wait(timeout=_END_SECONDS)
        SparkContext._gateway = SparkContext._jvm = None
