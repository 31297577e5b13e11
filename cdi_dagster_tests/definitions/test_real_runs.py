"""Runs in a real Dagster: webserver, daemon, run worker, Spark. What a person starts, ends, or loses."""

import json
import os
import shutil
import signal
import socket
import threading
import time
import urllib.request
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import pytest

from cdi_dagster.cli.servers import REPOSITORY, dagster_dev, free_port
from cdi_dagster.cli.webserver import Webserver
from cdi_dagster.coalescer import coalesce
from cdi_dagster.core.collections import REGISTRY
from cdi_dagster.core.places import run_report_key
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.ingestion.pinning import published_mark
from cdi_dagster.settings import load_settings
from cdi_dagster.storage.interface import open_storage

pytestmark = [pytest.mark.daemon, pytest.mark.spark, pytest.mark.timeout(600)]
EQUALITY = REGISTRY[1]
DAY = date(2023, 3, 26)
ENDED = ("SUCCESS", "FAILURE", "CANCELED")


class SwitchableKeyService:
    """Forwards to a real local key service, or takes connections and never answers."""

    def __init__(self):
        self.silent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._held = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self):
        self._service = DevelopmentKeyService().__enter__()
        self._target = int(self._service.url.rpartition(":")[2])
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._listener.close()
        for held in self._held:
            held.close()
        self._service.__exit__(*error)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._held.append(connection)
            if not self.silent:
                target = socket.create_connection(("127.0.0.1", self._target))
                for one, other in ((connection, target), (target, connection)):
                    threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(source, target):
    with source, target:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            return


class RealDagster:
    """A Dagster on a home of its own, with coalesced days of a small collection."""

    def __init__(self, home, webserver, keys, settings):
        self.home, self.webserver, self.keys = home, webserver, keys
        self.published = open_storage(settings.published_root)
        self._corporate = open_storage(settings.corporate_root)
        self.status_path = settings.status_path

    def write_day(self, storage_day, records=200):
        write_sample(self._corporate, EQUALITY, storage_day, records=records, objects=4, seed=1)
        coalesce(self._corporate, EQUALITY, storage_day)

    def launch(self, storage_day):
        return self.webserver.launch_run(self.webserver.assets_of(EQUALITY), str(storage_day), tags={})

    def wait(self, run_id, until, seconds=180):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.webserver.run(run_id, None)["status"]
            if status in until:
                return status
            time.sleep(0.3)
        raise AssertionError(f"run {run_id} is still {status}")

    def spark_processes(self):
        """Return the pids of everything that Spark started for this home: guard, JVM, driver, Python workers."""
        mark = f"CDI_HOME={self.home}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environ = (entry / "environ").read_bytes().split(b"\0")
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
                if mark in environ and ("ingest_daily" in command or "pyspark" in command):
                    found[int(entry.name)] = command
        return found

    def wait_for_hanging_workers(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if any("pyspark.daemon" in command for command in self.spark_processes().values()):
                return
            time.sleep(0.2)
        raise AssertionError(f"no Spark worker came up: {self.spark_processes()}")

    def wait_for_no_spark(self, seconds=30):
        deadline = time.monotonic() + seconds
        while self.spark_processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert self.spark_processes() == {}

    def terminate(self, run_id):
        query = "mutation($id: String!) { terminateRun(runId: $id) { __typename } }"
        body = json.dumps({"query": query, "variables": {"id": run_id}}).encode()
        request = urllib.request.Request(  # noqa: S310
            f"{self.webserver.url}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            assert json.load(answer)["data"]["terminateRun"]["__typename"] == "TerminateRunSuccess"

    def row(self, run_id):
        (path,) = [path for path in self.status_path.rglob("*.json") if run_id in path.read_text()]
        return json.loads(path.read_text())


@contextmanager
def real_dagster(home):
    with SwitchableKeyService() as keys:
        settings = load_settings(home=home)
        settings.dagster_home.mkdir(parents=True)
        shutil.copyfile(REPOSITORY / "deploy" / "dagster.yaml", settings.dagster_home / "dagster.yaml")
        environment = os.environ | {
            "CDI_HOME": str(home),
            "CDI_DKS_URL": keys.url,
            "CDI_SPARK_MASTER": "local[1]",
            "CDI_SPARK_DRIVER_MEMORY": "1g",
            "DAGSTER_HOME": str(settings.dagster_home),
            "SPARK_SUBMIT_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        }
        port = free_port()
        with dagster_dev(environment, port=port, log_path=home / "dagster.log") as dagster:
            webserver = Webserver(f"http://127.0.0.1:{port}")
            deadline = time.monotonic() + 120
            while not (webserver.answers() and webserver.locations()):
                dagster.require_running("Dagster")
                assert time.monotonic() < deadline, dagster.log()[-2000:]
                time.sleep(0.3)
            assert [error for _, error in webserver.locations()] == [None]
            yield RealDagster(home, webserver, keys, settings)


@pytest.fixture(scope="module")
def dagster(tmp_path_factory):
    with real_dagster(tmp_path_factory.mktemp("home")) as running:
        yield running


def test_a_day_materialised_in_the_ui_is_published_checked_and_completed(dagster):
    dagster.write_day(DAY)
    run_id = dagster.launch(DAY)
    assert dagster.wait(run_id, ENDED) == "SUCCESS"
    assert published_mark(dagster.published, EQUALITY, DAY)["published"] == 200
    assert dagster.row(run_id)["Status"] == "COMPLETED"
    events = dagster.webserver.run(run_id, None)["eventConnection"]["events"]
    checks = [e["evaluation"] for e in events if e["__typename"] == "AssetCheckEvaluationEvent"]
    assert sorted(check["checkName"] for check in checks if check["success"]) == [
        "counts_reconcile",
        "nothing_rejected",
        "offsets_are_whole",
        "published_on_time",
    ]
    said = [e["message"] for e in events if e["__typename"] == "LogMessageEvent"]
    assert any("objects" in text for text in said), said
    assert json.loads(dagster.published.read(run_report_key(EQUALITY, DAY, run_id)))["totals"]["read"] == 200


def test_a_day_whose_coalescer_has_not_run_fails_within_seconds_of_its_start(dagster):
    run_id = dagster.launch(DAY + timedelta(days=20))
    assert dagster.wait(run_id, ENDED, seconds=60) == "FAILURE"
    run = dagster.webserver.run(run_id, None)
    assert run["endTime"] - run["startTime"] < 20
    assert dagster.row(run_id)["Failure"].startswith("COALESCER_NOT_STARTED")


@pytest.fixture
def hanging_run(dagster):
    """A run in the middle of its Spark job, whose key service has gone silent."""
    day = DAY + timedelta(days=1)
    if not dagster.keys.silent:
        dagster.write_day(day)
    dagster.keys.silent = True
    run_id = dagster.launch(day)
    dagster.wait(run_id, ("STARTED",))
    dagster.wait_for_hanging_workers()
    return run_id, day


@pytest.mark.kill
def test_terminating_a_run_ends_everything_that_spark_started(dagster, hanging_run):
    run_id, day = hanging_run
    dagster.terminate(run_id)
    assert dagster.wait(run_id, ENDED, seconds=60) == "CANCELED"
    dagster.wait_for_no_spark()
    assert dagster.row(run_id)["Status"] == "FAILED"
    assert published_mark(dagster.published, EQUALITY, day) is None


@pytest.mark.kill
def test_killing_the_run_worker_with_sigkill_ends_everything_that_spark_started(dagster, hanging_run):
    run_id, day = hanging_run
    (guard,) = [pid for pid, command in dagster.spark_processes().items() if "process_guard" in command]
    worker = int(Path(f"/proc/{guard}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    dagster.wait_for_no_spark()
    # Run monitoring notices the lost worker.
    assert dagster.wait(run_id, ENDED, seconds=120) == "FAILURE"
    assert published_mark(dagster.published, EQUALITY, day) is None
