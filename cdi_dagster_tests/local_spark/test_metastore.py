"""The local metastore is for one process at a time: others wait their turn, and a dead holder lets go."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.local_spark.metastore import local_metastore_conf, local_metastore_lock
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

_HOLDER = """
import sys, time
from pathlib import Path
from cdi_dagster.local_spark.metastore import local_metastore_lock
with local_metastore_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_settings_lead_to_the_folder_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "home with space" / "metastore"
    conf = local_metastore_conf(folder)

    assert conf["spark.hadoop.javax.jdo.option.ConnectionURL"] == (
        f"jdbc:derby:;databaseName={folder}/metastore_db;create=true"
    )
    assert conf["spark.sql.warehouse.dir"] == f"{folder.parent.as_uri()}/metastore/warehouse"
    assert conf["spark.hadoop.hive.downloaded.resources.dir"] == f"{folder}/resources"
    assert f'"-Dderby.stream.error.file={folder}/derby.log"' in conf["spark.driver.extraJavaOptions"]
    assert not folder.exists()


def test_a_folder_that_no_jdbc_url_can_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CdiError, match="CDI_HOME"):
        local_metastore_conf(tmp_path / "a;b")


def test_a_second_one_waits_its_turn(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with local_metastore_lock(tmp_path, wait_seconds=PATIENCE_SECONDS, poll_seconds=0.01):
            order.append("second")

    with local_metastore_lock(tmp_path):
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.2)
        order.append("first")
    waiting.join(PATIENCE_SECONDS)
    assert order == ["first", "second"]


@pytest.mark.kill
def test_a_holder_that_takes_too_long_is_named_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(CdiError) as refused, local_metastore_lock(tmp_path, wait_seconds=0.2):
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
    assert refused.value.failure_class is FailureClass.LAUNCH_FAILED
    assert f"pid {holder.pid}" in refused.value.cause
    with local_metastore_lock(tmp_path, wait_seconds=PATIENCE_SECONDS):
        pass
