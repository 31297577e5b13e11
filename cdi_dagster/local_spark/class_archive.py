"""Makes the class archive with which local Spark starts in half the time; `jvm_options` explains it.

Run once per environment by `make install` (`python -m cdi_dagster.local_spark.class_archive`). A Spark that does a
little of everything our jobs do writes the archive when it ends. The archive is renamed into place when it is
complete, because Java aborts on an incomplete one.
"""

import os
import sys
import tempfile
from pathlib import Path

from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.spark_jobs import SparkJob
from cdi_dagster.local_spark.jvm_options import archive_making_options, class_archive_path
from cdi_dagster.local_spark.metastore import local_metastore_conf
from cdi_dagster.local_spark.spark_process import run_spark_step, spark_failure
from cdi_dagster.local_spark.spark_submit import SparkProcessConfig

_LOAD_CLASSES = SparkJob(name="load_classes")


def make_class_archive(archive: Path) -> None:
    """Make the archive, replacing an existing one.

    Raises:
        CdiError: there is no Java or no Spark, or Spark failed. There is no archive then.
    """
    archive.unlink(missing_ok=True)
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
        if made.is_file():
            os.replace(made, archive)


def main() -> int:
    """Make the archive of this environment. Always 0: without it Spark only starts more slowly."""
    print("Preparing Java classes, so that Spark starts faster", flush=True)
    try:
        make_class_archive(class_archive_path())
    except (CdiError, OSError) as error:
        print(f"Spark will start without prepared classes, some seconds slower. {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
