"""What becomes of a run when the container of the code location ends: stopped by ECS, or lost.

Real processes, started by the commands of deploy/aws/dagster.yaml, on the instance of deploy/dagster.yaml (SQLite).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import pytest

from cdi_dagster.cli.servers import Guarded
from cdi_dagster.coalescer import coalesce
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.published.read import read_mark
from cdi_dagster.resources.status_table import FileStatusTable
from cdi_dagster.settings import load_settings
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.account.stacks import shipped, template
from cdi_dagster_tests.clock import clock_at
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.instance import lines_of_run
from cdi_dagster_tests.processes import kill_session
from cdi_dagster_tests.repository.files import REPOSITORY
from cdi_dagster_tests.waiting import last_lines_of, reserved_port, wait_until

pytestmark = [pytest.mark.daemon, pytest.mark.kill]
Found = TypeVar("Found")
DATA_PRODUCT = "CDI-data:businessAudit"
CONTAINERS = {
    container["Name"]: container
    for task in ("CodeTask", "DaemonTask")
    for container in template("dagster")["Resources"][task]["Properties"]["ContainerDefinitions"]
}


class Container:
    """The processes of a container; once the first has ended, the kernel kills the others."""

    def __init__(self, command: list[str], log_path: Path, environment: dict[str, str]) -> None:
        with log_path.open("a") as log:
            self._first = subprocess.Popen(
                command,
                env=environment,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Stop it as ECS does: SIGTERM to the first process alone, SIGKILL when its time is over."""
        self._first.terminate()
        try:
            self._first.wait(timeout=CONTAINERS["code"]["StopTimeout"])
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill all of it at once."""
        kill_session(self._first.pid)
        self._first.wait()


class Installation:
    """A daemon, and the container of the code location that it launches runs in."""

    def __init__(self, home: Path, port: int, stack: ExitStack) -> None:
        self._home, self._port, self._stack = home, port, stack
        shutil.copy(shipped("production/workspace.yaml"), home)
        quick = {"poll_interval_seconds: 20": "poll_interval_seconds: 2", "run_end_seconds: 60": "run_end_seconds: 1"}
        configuration = shipped("dagster.yaml").read_text()
        for slow, value in quick.items():
            configuration = configuration.replace(slow, value)
        (home / "dagster.yaml").write_text(configuration)
        with dg.DagsterInstance.from_config(str(home)):
            pass  # as the container `migrate`: two processes that make the database at once break it
        settings = load_settings(home=home / "cdi" / "rapid")
        self._launches = home / "cdi" / "rapid" / "launches"
        self._corporate, self._published = open_storage(settings.corporate_root), open_storage(settings.published_root)
        self.rows = FileStatusTable(settings.status_path)

    def start_code(self) -> Container:
        container = Container(self._command("code"), self._home / "code.log", self._environment())
        self._stack.callback(container.kill)
        return container

    def start_daemon(self) -> None:
        log = self._home / "daemon.log"
        self._stack.enter_context(Guarded(self._command("daemon"), environment=self._environment(), log_path=log))

    def _command(self, container: str) -> list[str]:
        here = {
            "4000": str(self._port),
            "workspace.yaml": str(self._home / "workspace.yaml"),
            "cdi_dagster.definitions": "cdi_dagster_tests.gate.location_rapid",
        }
        program, *words = CONTAINERS[container]["Command"]
        return [str(Path(sys.executable).with_name(program)), *(here.get(word, word) for word in words)]

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DAGSTER_HOME": str(self._home),
            "DAGSTER_CODE_HOST": "127.0.0.1",
            "DAGSTER_CODE_PORT": str(self._port),
            "CDI_HOME": str(self._home / "cdi"),
            "CDI_AUTOMATION": "true",
            "CDI_COLLECTIONS": AUDIT.id,
        }

    def coalesced(self, day: date) -> None:
        write_sample(self._corporate, AUDIT.on(day), records=30, objects=2, kafka_partitions=1, seed=1)
        coalesce(self._corporate, AUDIT.on(day))

    def is_published(self, day: date) -> bool:
        return read_mark(self._published, AUDIT.on(day)) is not None

    @contextmanager
    def holding(self, day: date) -> Iterator[None]:
        """Let the ingestion of the day go on only after the block."""
        hold = Path(f"{self._launches}.hold-ingest_daily-{day}")
        hold.parent.mkdir(parents=True, exist_ok=True)
        hold.touch()
        yield
        hold.unlink()

    def at_work(self) -> list[str]:
        """Return the runs whose ingestion was launched."""
        lines = self._launches.read_text().splitlines() if self._launches.exists() else []
        return [line.split()[3] for line in lines if line.startswith("ingest_daily")]

    def runs(self) -> list[dg.DagsterRun]:
        """Return all runs, oldest first."""
        with dg.DagsterInstance.from_config(str(self._home)) as instance:
            return [record.dagster_run for record in instance.get_run_records(ascending=True)]

    def outcomes(self) -> list[tuple[str, str | None]]:
        return [(run.status.value, run.tags.get("cdi/failure_class")) for run in self.runs()]

    def wait(self, condition: Callable[[], Found], what: str) -> Found:
        """Wait for something in this installation and return it; in vain, report its runs and what it logged."""
        return wait_until(condition, what, seen=self._seen, pause_seconds=0.5)

    def _seen(self) -> str:
        with dg.DagsterInstance.from_config(str(self._home)) as instance:
            events = [line for run in self.runs() for line in lines_of_run(instance, run.run_id)]
        return "\n".join(
            [*map(str, self.outcomes()), *events, last_lines_of(self._home / "daemon.log", self._home / "code.log")]
        )


@pytest.fixture
def yesterday() -> Iterator[date]:
    # Not back: to a clock behind SQLite's, which stays as it is, no run ended long enough ago to free its slots.
    with clock_at((datetime.now(UTC) + timedelta(days=1)).replace(hour=10, minute=0)):
        yield datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture
def installation(tmp_path: Path, yesterday: date) -> Iterator[Installation]:
    with reserved_port() as port, ExitStack() as stack:
        installation = Installation(tmp_path, port, stack)
        installation.coalesced(yesterday)
        yield installation


def test_a_run_whose_container_is_stopped_is_interrupted_and_is_run_again_at_once(
    installation: Installation, yesterday: date
) -> None:
    code = installation.start_code()
    installation.start_daemon()
    with installation.holding(yesterday):
        (stopped,) = installation.wait(installation.at_work, "a run is at work")
        code.stop()
        assert installation.outcomes()[0] == ("FAILURE", "INTERRUPTED")
        row: Any = installation.rows.get(stopped, DATA_PRODUCT)
        assert (row.status, row.failure) == ("FAILED", "INTERRUPTED: Dagster was stopped during the run.")
    installation.start_code()
    again = [("FAILURE", "INTERRUPTED"), ("SUCCESS", None)]
    # The next run may be launched before the server is back: lost to that, it would be a third, in ten minutes.
    installation.wait(lambda: installation.outcomes() == again, "the day is run again")
    assert installation.is_published(yesterday)


def test_a_run_whose_container_is_lost_is_noticed_and_is_run_again(installation: Installation, yesterday: date) -> None:
    code = installation.start_code()
    installation.start_daemon()
    with installation.holding(yesterday):
        (lost,) = installation.wait(installation.at_work, "a run is at work")
        code.kill()
        assert installation.outcomes() == [("STARTED", None)]
    with clock_at(datetime.now(UTC) + timedelta(minutes=11)):  # it waits for ten minutes
        installation.start_code()
    again = [("FAILURE", "WORKER_LOST"), ("SUCCESS", None)]
    installation.wait(lambda: installation.outcomes() == again, "the loss is noticed, and the day is run again")
    assert installation.runs()[0].tags["cdi/told"].startswith("WORKER_LOST; no alert is sent: ")
    row: Any = installation.rows.get(lost, DATA_PRODUCT)
    assert (row.status, row.failure.partition(": ")[0]) == ("FAILED", "WORKER_LOST")
    assert installation.is_published(yesterday)
