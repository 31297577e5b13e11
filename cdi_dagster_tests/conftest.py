"""Fixtures that several packages of tests share: one Spark for the whole test process.

Servers are plain functions (`s3_server`) and fixtures of one package live in its own conftest. Keep this small.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from cdi_dagster.aws.clients import use_region, use_roles
from cdi_dagster.core.failures import CdiError
from cdi_dagster.local_spark.java import use_java_for_spark_in_this_process
from cdi_dagster.local_spark.jvm_options import quick_start_options
from cdi_dagster.local_spark.spark_submit import utf8_locale
from cdi_dagster.storage import use_encryption
from cdi_dagster_tests.clock import start_clock_of_environment
from cdi_dagster_tests.developers_environment import leave_out_developers_settings
from cdi_dagster_tests.markers import MarkerGuard
from cdi_dagster_tests.s3_server import REGION, s3_endpoint

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

leave_out_developers_settings()
start_clock_of_environment()  # before modules of tests look at it
settings.register_profile("any machine", deadline=None)  # an example may take as long as it needs
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(MarkerGuard())
    with suppress(CdiError):  # without a Java the tests of Spark fail, and the others run
        use_java_for_spark_in_this_process()


@pytest.fixture(autouse=True)
def _nothing_set_for_aws() -> Iterator[None]:
    """Leave no region, role or encryption of one test's settings to the next."""
    yield
    use_region("")
    use_roles({})
    use_encryption(None)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[SparkSession]":
    """A Spark with two cores, four tries a task, a Hive catalog in memory, and workers that reach the tests' S3."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable  # the setting of the same name counts for spark-submit only
    home = tmp_path_factory.mktemp("spark")
    options = {
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.warehouse.dir": (home / "warehouse").as_uri(),
        "spark.hadoop.hive.downloaded.resources.dir": str(home / "resources"),
        "spark.hadoop.javax.jdo.option.ConnectionURL": "jdbc:derby:memory:metastore;create=true",
        "spark.driver.extraJavaOptions": f"{' '.join(quick_start_options())} -Duser.timezone=UTC "
        f"-Dderby.system.home={home} -Dderby.stream.error.file={home}/derby.log",
        "spark.executorEnv.AWS_ENDPOINT_URL": s3_endpoint(),
        "spark.executorEnv.AWS_DEFAULT_REGION": REGION,
        "spark.executorEnv.AWS_ACCESS_KEY_ID": "testing",
        "spark.executorEnv.AWS_SECRET_ACCESS_KEY": "testing",
    }
    builder = SparkSession.builder.master("local[2,4]").appName("tests")
    for name, value in options.items():
        builder = builder.config(name, value)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in utf8_locale(os.environ).items():
            patched.setenv(name, value)
        session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
