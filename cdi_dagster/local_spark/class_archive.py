"""Makes the class archive with which local Spark starts in half the time; `jvm_options` explains it.

Run once per environment by `make install` (`python -m cdi_dagster.local_spark.class_archive`). A Spark that does a
little of everything our jobs do writes the archive when it ends. The archive is renamed into place when it is
complete, because Java aborts on an incomplete one. It lies on the archive of Java's own classes, which a Java has as a
rule; the packaged one has not, and gets it here.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.spark_jobs import SparkJob
from cdi_dagster.local_spark.java import PACKAGED_JAVA, Java, find_java
from cdi_dagster.local_spark.jvm_options import archive_making_options, class_archive_path
from cdi_dagster.local_spark.metastore import local_metastore_conf
from cdi_dagster.local_spark.spark_process import run_spark_step, spark_failure
from cdi_dagster.local_spark.spark_submit import SparkProcessConfig, launch_failed

_LOAD_CLASSES = SparkJob(name="load_classes")


def make_class_archive(archive: Path) -> None:
    """Make the archive, replacing an existing one.

    Raises:
        CdiError: there is no Java or no Spark, or one of them failed. There is no archive then.
    """
    archive.unlink(missing_ok=True)
    _make_archive_of_java(find_java())
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=archive.parent) as made_in:
        folder = Path(made_in)
        made = folder / archive.name
        conf = local_metastore_conf(folder / "metastore", jvm_options=archive_making_options(made))
        config = SparkProcessConfig(work_folder=folder, master="local[1]", conf=conf)
        ended = run_spark_step(_LOAD_CLASSES, [str(folder)], config=config, correlation_id="class-archive")
        failure = spark_failure(ended.exit_code, ended.log_tail, report={}, failure=None)
        if failure:
            raise failure
        if not made.is_file():
            raise launch_failed("Java made no class archive.", "Run Spark without it, or with another Java 17.")
        os.replace(made, archive)


def _make_archive_of_java(java: Java) -> None:
    """Make the archive of Java's own classes where it is missing; only in the Java of this Python environment."""
    made = java.path.parent.parent / "lib" / "server" / "classes.jsa"
    if java.source != PACKAGED_JAVA or made.is_file():
        return
    ended = subprocess.run([java.path, "-Xshare:dump"], capture_output=True, text=True, timeout=300, check=False)  # noqa: S603
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no output"])[-1]
        raise launch_failed(f"{java.path} cannot archive its own classes: {last}", "Run Spark without the archive.")


def main() -> int:
    """Make the archive of this environment. Always 0: without it Spark only starts more slowly."""
    print("Preparing Java classes, so that Spark starts faster", flush=True)
    try:
        make_class_archive(class_archive_path())
    except (CdiError, OSError, subprocess.TimeoutExpired) as error:
        print(f"Spark will start without prepared classes, some seconds slower. {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
