"""The local metastore: an embedded Derby database in a folder, and the Spark settings for it.

Shared by the local launcher, `cdi ingest` and tests. Production has its own metastore and needs none of this. Derby
allows one process at a time, so whoever uses the catalogue first takes `local_metastore_lock`.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.spark_jobs import LOCAL_METASTORE
from cdi_dagster.local_spark.jvm_options import quick_start_options

_UNFIT = set(';"\\\n')
_log = logging.getLogger(__name__)


def local_metastore_conf(folder: Path, *, jvm_options: Sequence[str] | None = None) -> dict[str, str]:
    """Return the Spark settings for a metastore and warehouse in a folder; the folder is made by Spark when needed.

    Args:
        folder: for metastore, warehouse and log.
        jvm_options: JVM options; `quick_start_options()` by default.

    Raises:
        CdiError: LAUNCH_FAILED where the folder's name cannot be written in a JDBC URL.
    """
    location = folder.absolute()
    if _UNFIT & set(str(location)):
        raise CdiError(
            FailureClass.LAUNCH_FAILED,
            f"The metastore cannot be in {location}: the path must not hold a semicolon, quote or backslash.",
            next_step="Set CDI_HOME to another folder.",
        )
    java_options = [
        f'"-Dderby.system.home={location}"',
        f'"-Dderby.stream.error.file={location / "derby.log"}"',
        # ORC keeps wall-clock times of the writer's zone: the zone is UTC, as on the clusters.
        "-Duser.timezone=UTC",
        *(quick_start_options() if jvm_options is None else jvm_options),
    ]
    database_url = f"jdbc:derby:;databaseName={location / 'metastore_db'};create=true"
    return {
        LOCAL_METASTORE: str(location),
        "spark.hadoop.javax.jdo.option.ConnectionURL": database_url,
        # By default each session makes an empty folder in the temp folder, and Spark never closes one.
        "spark.hadoop.hive.downloaded.resources.dir": str(location / "resources"),
        "spark.sql.warehouse.dir": (location / "warehouse").as_uri(),
        "spark.driver.extraJavaOptions": " ".join(java_options),
    }


@contextmanager
def local_metastore_lock(folder: Path, *, wait_seconds: float = 600.0, poll_seconds: float = 0.5) -> Iterator[None]:
    """Lock the local metastore for one process; others wait, and log for whom. A dead process's lock is released.

    Raises:
        CdiError: LAUNCH_FAILED where another process holds it for longer than `wait_seconds`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    logged = False
    with (folder / "in_use_by").open("a+") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= began + wait_seconds:
                    raise _taken(lock.name, wait_seconds) from error
                if not logged:
                    _log.info("Waiting for the local metastore, which process %s has open", _holder(lock.name))
                logged = True
                time.sleep(poll_seconds)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _holder(lock: str) -> str:
    return Path(lock).read_text().strip() or "unknown"


def _taken(lock: str, wait_seconds: float) -> CdiError:
    return CdiError(
        FailureClass.LAUNCH_FAILED,
        f"Another process (pid {_holder(lock)}) has held the local metastore for over {wait_seconds:.0f} s; "
        "it allows one at a time.",
        next_step="Wait until it has ended and run again, or run with another CDI_HOME.",
    )
