"""The command line and environment of `spark-submit` on this machine, and checks that they can work.

Decides and checks only; `spark_process` runs it. No dagster, and no import of pyspark.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cdi_dagster
from cdi_dagster.aws.clients import region_environment
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.spark_jobs import SparkJob
from cdi_dagster.local_spark.java import environment_with
from cdi_dagster.local_spark.jvm_options import quick_start_options
from cdi_dagster.local_spark.metastore import local_metastore_conf
from cdi_dagster.local_spark.s3a_conf import find_s3a_jars, s3a_class_path, s3a_conf_here
from cdi_dagster.storage import encryption

DEFAULT_MASTER = "local[*,4]"
"""Every core of this machine, and four attempts a task as on a cluster: with `local[*]` one killed worker fails it."""
DEFAULT_DRIVER_MEMORY = "2g"

_LOCAL_CONF = {
    "spark.log.level": "WARN",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.python.daemon.module": "cdi_dagster.spark.worker_daemon",
}


@dataclass(frozen=True, kw_only=True)
class SparkProcessConfig:
    """How Spark runs on this machine.

    Attributes:
        work_folder: logs (kept) and scratch space (removed with the process) are below it.
        metastore_folder: of the local Hive metastore; None for a job that runs without one.
        master: Spark master URL.
        driver_memory: JVM heap of the one local process, as Spark writes it (`2g`).
        conf: further Spark settings.
        s3a_jars: folder of the jars with which Spark writes tables to `s3://`; None for the folder of
            `make s3a-jars`.
        grace_seconds: time between SIGTERM and SIGKILL when it has to end.
    """

    work_folder: Path
    metastore_folder: Path | None = None
    master: str = DEFAULT_MASTER
    driver_memory: str = DEFAULT_DRIVER_MEMORY
    conf: Mapping[str, str] = field(default_factory=dict)
    s3a_jars: Path | None = None
    grace_seconds: float = 10.0


def spark_submit_command(job: SparkJob, arguments: Sequence[str], *, config: SparkProcessConfig) -> list[str]:
    """Return the `spark-submit` command line of one step.

    Raises:
        CdiError: LAUNCH_FAILED where pyspark, the job, or what it needs for S3 is not installed.
    """
    entry_point = Path(cdi_dagster.__file__).parent / "spark" / "entry_points" / f"{job.name}.py"
    if not entry_point.is_file():
        raise launch_failed(f"There is no Spark job {job.name} in this installation.", "Install cdi_dagster again.")
    command = [str(pyspark_folder() / "bin" / "spark-submit")]
    command += ["--master", config.master, "--driver-memory", config.driver_memory, "--name", job.name]
    needs_s3a = bool(s3a_jars(job, arguments, config=config))
    conf = spark_conf(config, needs_s3a=needs_s3a, computes_in_jvm=job.computes_in_jvm)
    for key, value in conf.items():
        command += ["--conf", f"{key}={value}"]
    return [*command, str(entry_point), *arguments]


def s3a_jars(job: SparkJob, arguments: Sequence[str], *, config: SparkProcessConfig) -> tuple[Path, ...]:
    """Return the jars that a step needs on its class path; none unless it writes tables to S3.

    Raises:
        CdiError: LAUNCH_FAILED where they are missing.
    """
    if job.needs_s3a and _publishes_to_s3(arguments):
        return find_s3a_jars(pyspark_folder(), config.s3a_jars)
    return ()


def spark_conf(config: SparkProcessConfig, *, needs_s3a: bool, computes_in_jvm: bool = False) -> dict[str, str]:
    """Return the Spark settings of this machine, with its metastore, and with S3 where that is needed."""
    metastore = {}
    if config.metastore_folder:
        jvm_options = quick_start_options(computes=computes_in_jvm)
        metastore = local_metastore_conf(config.metastore_folder, jvm_options=jvm_options)
    s3a = s3a_conf_here(os.environ) if needs_s3a else {}
    return {**s3a, **_LOCAL_CONF, **metastore, **config.conf}


def scratch_conf(folder: Path) -> dict[str, str]:
    """Return the settings that keep what Spark and S3A write in passing below a folder, which only we should read.

    S3A keeps every upload in a file until it is sent; by default in `/tmp/hadoop-<user>/s3a`, for everybody to read.
    """
    return {"spark.local.dir": str(folder), "spark.hadoop.fs.s3a.buffer.dir": str(folder / "s3a")}


def _publishes_to_s3(arguments: Sequence[str]) -> bool:
    pairs = zip(arguments, arguments[1:], strict=False)
    return any(option == "--published-root" and root.startswith("s3://") for option, root in pairs)


def pyspark_folder() -> Path:
    """Return where the installed pyspark is.

    Raises:
        CdiError: LAUNCH_FAILED where there is none.
    """
    # find_spec does not import it: pyspark takes a second, and this process needs only its location.
    spec = importlib.util.find_spec("pyspark")
    if spec is None or not spec.submodule_search_locations:
        raise launch_failed(
            "Spark is not installed in this Python environment.", "Install it, in the checkout: pip install '.[spark]'."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def spark_environment(java: Path, jars: Sequence[Path] = ()) -> dict[str, str]:
    """Return the environment of the Spark process: ours, with this Python, this pyspark, that Java and these jars."""
    environment = {**environment_with(java, os.environ), **s3a_class_path(jars, os.environ)}
    environment |= {**region_environment(), **encryption().environment, **utf8_locale(environment)}
    environment["SPARK_HOME"] = str(pyspark_folder())
    environment["PYSPARK_PYTHON"] = environment["PYSPARK_DRIVER_PYTHON"] = sys.executable
    environment["PYTHONUNBUFFERED"] = "1"
    environment["SPARK_LOCAL_IP"] = "127.0.0.1"
    # Spark logs the message of a task's error, which may quote a row: this pattern keeps its class and stack only.
    log_pattern = Path(cdi_dagster.__file__).parent / "spark" / "log4j2.json"
    options = f'"-Dlog4j2.configurationFile={log_pattern.as_uri()}" {environment.get("SPARK_SUBMIT_OPTS", "")}'
    environment["SPARK_SUBMIT_OPTS"] = options.rstrip()
    return environment


def utf8_locale(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what gives the JVM a UTF-8 locale: in any other it writes paths beyond ASCII to other places."""
    locale = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or ""
    return {} if locale.lower().replace("-", "").endswith("utf8") else {"LC_ALL": "C.UTF-8"}


def launch_failed(cause: str, next_step: str) -> CdiError:
    """Return a LAUNCH_FAILED failure."""
    return CdiError(FailureClass.LAUNCH_FAILED, cause, next_step=next_step)
