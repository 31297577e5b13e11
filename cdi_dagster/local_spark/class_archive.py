"""Makes the class archive with which local Spark starts in half the time; what it is for is in `jvm_options`.

`python -m cdi_dagster.local_spark.class_archive`, once when an environment is made (`make install`). A Spark that does
a little of all that our jobs do writes the archive when it ends, and only a whole one gets the name: Java aborts on
half of one.
"""

import os
import sys
import tempfile
from pathlib import Path

from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.spark_jobs import SparkJob
from cdi_dagster.local_spark.jvm_options import archive_making_options, class_archive_path
from cdi_dagster.local_spark.metastore import local_metastore_conf
from cdi_dagster.local_spark.spark_process import run_spark_step, verdict
from cdi_dagster.local_spark.spark_submit import SparkProcessConfig

_LOAD_CLASSES = SparkJob(name="load_classes")


def make_class_archive(archive: Path) -> None:
    """Make the archive, in the place of one that is there.

    Raises:
        CdiError: there is no Java or no Spark, or Spark failed; then there is no archive.
    """
    archive.unlink(missing_ok=True)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=archive.parent) as made_in:
        folder = Path(made_in)
        made = folder / archive.name
        conf = local_metastore_conf(folder / "metastore", jvm_options=archive_making_options(made))
        config = SparkProcessConfig(work_folder=folder, master="local[1]", conf=conf)
        ended = run_spark_step(_LOAD_CLASSES, [str(folder)], config=config, correlation_id="class-archive")
        failure = verdict(ended.exit_code, ended.log_tail, report={}, failure=None)
        if failure:
            raise failure
        if made.is_file():
            os.replace(made, archive)


def main() -> int:
    """Make the archive of this environment. Always 0: without it everything works, only later."""
    print("Preparing Java classes, so that Spark starts sooner", flush=True)
    try:
        make_class_archive(class_archive_path())
    except (CdiError, OSError) as error:
        print(f"Spark will start without prepared classes, some seconds later. {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
