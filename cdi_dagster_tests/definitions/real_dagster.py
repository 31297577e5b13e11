"""A real Dagster with a daemon, run workers and Spark, on a home of its own, for the tests of this package."""

import json
import os
import shutil
import socket
import threading
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, Self

from cdi_dagster.cli.servers import REPOSITORY, dagster_dev
from cdi_dagster.cli.webserver import Webserver
from cdi_dagster.coalescer import coalesce
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.settings import Settings, load_settings
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.collections import EQUALITY
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, last_lines_of, reserved_port, wait_until

ENDED = ("SUCCESS", "FAILURE", "CANCELED")


class SwitchableKeyService:
    """Forwards to a real local key service, or takes connections and never answers."""

    def __init__(self) -> None:
        self.silent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._held: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._service = DevelopmentKeyService().__enter__()
        self._target = int(self._service.url.rpartition(":")[2])
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._listener.close()
        for held in self._held:
            held.close()
        self._service.__exit__(*error)

    def _accept(self) -> None:
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


def _pump(source: socket.socket, target: socket.socket) -> None:
    with source, target:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            return


class RealDagster:
    """A Dagster on a home of its own, with coalesced days of a small collection."""

    def __init__(self, home: Path, webserver: Webserver, keys: SwitchableKeyService, settings: Settings) -> None:
        self.home, self.webserver, self.keys = home, webserver, keys
        self.published = open_storage(settings.published_root)
        self._corporate = open_storage(settings.corporate_root)
        self.status_path = settings.status_path

    def write_day(self, storage_day: date, records: int = 200) -> None:
        write_sample(self._corporate, EQUALITY.on(storage_day), records=records, objects=4, seed=1)
        coalesce(self._corporate, EQUALITY.on(storage_day))

    def launch(self, storage_day: date) -> str:
        return self.webserver.launch_run(self.webserver.assets_of(EQUALITY), str(storage_day), tags={})

    def wait(self, run_id: str, until: Collection[str]) -> Any:
        def status() -> Any:
            found = self.webserver.run(run_id, None)["status"]
            return found if found in until else None

        return wait_until(status, f"run {run_id} is one of {until}", seen=lambda: self._seen(run_id), pause_seconds=0.3)

    def _seen(self, run_id: str) -> str:
        run = self.webserver.run(run_id, None)
        said = [event.get("message", "") for event in run["eventConnection"]["events"]][-20:]
        return "\n".join([run["status"], *said, last_lines_of(self.home / "dagster.log")])

    def spark_processes(self) -> dict[int, str]:
        """Return the pids of everything that Spark started for this home: guard, JVM, driver, Python workers."""
        mark = f"CDI_HOME={self.home}".encode()
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environ = (entry / "environ").read_bytes().split(b"\0")
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
                if mark in environ and any(part in command for part in ("ingest_daily", "pyspark", "worker_daemon")):
                    found[int(entry.name)] = command
        return found

    def wait_for_hanging_workers(self) -> None:
        def has_come() -> bool:
            return any("worker_daemon" in command for command in self.spark_processes().values())

        wait_until(has_come, "a Spark worker has come up", seen=self.spark_processes)

    def wait_for_no_spark(self) -> None:
        wait_until(lambda: not self.spark_processes(), "all of Spark has ended", seen=self.spark_processes)

    def terminate(self, run_id: str) -> None:
        query = "mutation($id: String!) { terminateRun(runId: $id) { __typename } }"
        body = json.dumps({"query": query, "variables": {"id": run_id}}).encode()
        request = urllib.request.Request(  # noqa: S310
            f"{self.webserver.url}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            assert json.load(answer)["data"]["terminateRun"]["__typename"] == "TerminateRunSuccess"

    def row(self, run_id: str) -> Any:
        (path,) = [path for path in self.status_path.rglob("*.json") if run_id in path.read_text()]
        return json.loads(path.read_text())


@contextmanager
def real_dagster(home: Path) -> Iterator[RealDagster]:
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
        log = home / "dagster.log"
        with reserved_port() as port, dagster_dev(environment, port=port, log_path=log) as dagster:
            webserver = Webserver(f"http://127.0.0.1:{port}")

            def answers() -> Any:
                dagster.require_running("Dagster")
                return webserver.answers() and webserver.locations()

            wait_until(answers, "Dagster answers", seen=lambda: last_lines_of(log))
            assert [error for _, error in webserver.locations()] == [None]
            yield RealDagster(home, webserver, keys, settings)
