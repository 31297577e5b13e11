"""A real Dagster for the gate: webserver, daemon and code locations on a home of its own; asked by GraphQL.

What runs did is read from the instance's own records, what was published from storage.
"""

import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from cdi_dagster.cli.servers import REPOSITORY, Guarded
from cdi_dagster.cli.webserver import Webserver
from cdi_dagster.coalescer import coalesce
from cdi_dagster.core.collections import Collection
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.published.read import read_mark
from cdi_dagster.resources.status_table import FileStatusTable
from cdi_dagster.settings import load_settings
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.gate.hearing import Heard, hearing
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, last_lines_of, reserved_port, wait_until

Found = TypeVar("Found")
RECORDS = 30
ENDED = ("SUCCESS", "FAILURE", "CANCELED")

LOCATIONS = ("on_time", "later", "rapid")
_LOCATION = "  - python_module: {{module_name: cdi_dagster_tests.gate.location_{0}, location_name: {0}}}\n"
_START = {
    "schedule": """mutation($s: ScheduleSelector!) { startSchedule(scheduleSelector: $s) { __typename } }""",
    "sensor": """mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }""",
}
_LAUNCH = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
_TERMINATE = """mutation($id: String!) { terminateRun(runId: $id) { __typename } }"""
_EVALUATE = """mutation($s: SensorSelector!) { sensorDryRun(selectorData: $s, cursor: null) {
  ... on PythonError { message }
  ... on DryRunInstigationTick { evaluationResult {
    error { message } runRequests { runKey tags { key value } } } } } }"""
_RELOAD = """mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename
  ... on WorkspaceLocationEntry { locationOrLoadError { __typename } } } }"""
_BACKFILL = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) { __typename
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


class Place:
    """One code location: its storage, and its part of Dagster."""

    def __init__(self, dagster: "GateDagster", name: str, home: Path) -> None:
        self.dagster, self.name = dagster, name
        self.settings = load_settings(home=home / name)
        self.corporate = open_storage(self.settings.corporate_root)
        self.published = open_storage(self.settings.published_root)
        self.rows = FileStatusTable(self.settings.status_path)
        self._launches = home / name / "launches"

    def write(self, collection: Collection, day: date, *, seed: int = 1, first_offset: int = 0) -> None:
        firsts = {0: first_offset}
        options: dict[str, Any] = {"records": RECORDS, "objects": 6, "kafka_partitions": 1, "first_offsets": firsts}
        write_sample(self.corporate, collection.on(day), seed=seed, **options)

    def coalesced(self, collection: Collection, *days: date) -> None:
        for day in days:
            self.write(collection, day)
            coalesce(self.corporate, collection.on(day))

    def start(self, kind: str, name: str) -> None:
        selector = {f"{kind}Name": name, "repositoryName": "__repository__", "repositoryLocationName": self.name}
        answer = self.dagster.ask(_START[kind], s=selector)
        assert "PythonError" not in json.dumps(answer), answer

    def next_tick(self, *schedules: str) -> datetime:
        """Have the started schedules tick in the minute that comes, by a reload, and return when.

        Nothing here has to be quick: the daemon makes up for a tick that was due since it last noted the schedule.
        """
        self.dagster.wait(lambda: self.dagster.are_noted(schedules), "the daemon has noted the schedules")
        due_at = (datetime.now(UTC) + timedelta(minutes=1)).replace(second=0, microsecond=0)
        (self.settings.home / "due_time").write_text(f"{due_at:%H:%M}")
        answer = self.dagster.ask(_RELOAD, name=self.name)["reloadRepositoryLocation"]
        assert answer["locationOrLoadError"]["__typename"] == "RepositoryLocation", answer
        return due_at

    def evaluate(self, sensor: str) -> list[tuple[str, list[dict[str, str]]]]:
        """Evaluate a sensor as the UI does, launching nothing, and return its run requests' keys and tags."""
        selector = {"sensorName": sensor, "repositoryName": "__repository__", "repositoryLocationName": self.name}
        result = self.dagster.ask(_EVALUATE, s=selector)["sensorDryRun"]["evaluationResult"]
        assert result["error"] is None, result
        return [(request["runKey"], request["tags"]) for request in result["runRequests"] or []]

    def click(
        self,
        collection: Collection,
        day: date,
        *,
        config: Mapping[str, Any] | None = None,
        assets: Sequence[Sequence[str]] | None = None,
        tags: Sequence[Mapping[str, str]] = (),
    ) -> str:
        """Materialise one partition as the UI does, and return the run's id."""
        params = {
            "selector": {
                "repositoryLocationName": self.name,
                "repositoryName": "__repository__",
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": path} for path in (assets or _assets(collection))],
                "assetCheckSelection": None,
            },
            "mode": "default",
            "runConfigData": config or {},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": str(day)}, *tags]},
        }
        answer = self.dagster.ask(_LAUNCH, p=params)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def backfill(self, collection: Collection, days: Sequence[date]) -> str:
        params = {
            "assetSelection": [{"path": path} for path in _assets(collection)],
            "partitionNames": [str(day) for day in days],
        }
        answer = self.dagster.ask(_BACKFILL, p=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def backfill_job(self, collection: Collection, days: Sequence[date]) -> str:
        """Backfill the job of this very location: an asset's backfill goes to any that has the asset."""
        params = {
            "selector": {
                "partitionSetName": f"{collection.asset_name}_daily_partition_set",
                "repositorySelector": {"repositoryName": "__repository__", "repositoryLocationName": self.name},
            },
            "partitionNames": [str(day) for day in days],
        }
        answer = self.dagster.ask(_BACKFILL, p=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def is_published(self, collection: Collection, day: date) -> int:
        mark = read_mark(self.published, collection.on(day))
        return mark.published if mark else 0

    def launches(self, day: date) -> list[str]:
        """Return the fingerprints for which an ingestion of the day was launched."""
        return [fingerprint for fingerprint, *_ in self._ingestions(day)]

    def at_work(self, day: date) -> list[str]:
        """Return the runs whose ingestion of the day was launched."""
        return [run for _, run, _ in self._ingestions(day)]

    def worker_of(self, run_id: str, day: date) -> int | None:
        """Return the process id of the run worker whose ingestion is at work, or None."""
        return next((int(process) for _, run, process in self._ingestions(day) if run == run_id), None)

    def tables_at_work(self, day: date) -> list[tuple[str, int]]:
        """Return the runs whose tables of the day were launched, each with the process id of its worker."""
        return [(run, int(process)) for _, run, process in self._launched("publish_tables", day)]

    def _ingestions(self, day: date) -> list[list[str]]:
        return self._launched("ingest_daily", day)

    def _launched(self, step: str, day: date) -> list[list[str]]:
        lines = self._launches.read_text().splitlines() if self._launches.exists() else []
        return [line.split()[2:] for line in lines if line.split()[:2] == [step, str(day)]]

    def lose_once(self, day: date, *, step: str) -> None:
        """Let the next launch of a step of the day fail as if its cluster were lost."""
        Path(f"{self._launches}.lose-{step}-{day}").touch()

    @contextmanager
    def holding(self, day: date, *, step: str = "ingest_daily") -> Iterator[None]:
        """Let a step of the day, its ingestion by default, go on only after the block."""
        hold = Path(f"{self._launches}.hold-{step}-{day}")
        hold.parent.mkdir(parents=True, exist_ok=True)
        hold.touch()
        try:
            yield
        finally:
            hold.unlink()


def _assets(collection: Collection) -> list[list[str]]:
    # Input and records are what the gate is about; tables would only make the runs longer.
    return [["corporate_storage", collection.asset_name], [collection.asset_name, "daily_records"]]


class GateDagster:
    """The running Dagster; `stop` and `start` as a deployment does."""

    on_time: Place
    later: Place
    rapid: Place
    instance: dg.DagsterInstance
    """What runs did; while it is running."""

    def __init__(self, home: Path, port: int, heard: Heard, locations: Sequence[str]) -> None:
        self.home, self.url, self.heard = home, f"http://127.0.0.1:{port}", heard
        self._locations = locations
        for name in locations:
            setattr(self, name, Place(self, name, home))
        command = [sys.executable, "-m", "dagster", "dev", "-w", str(home / "workspace.yaml"), "-h", "127.0.0.1"]
        self._command = [*command, "-p", str(port)]
        self._starts, self._processes = 0, ExitStack()
        self._logs: list[Path] = []

    def start(self) -> None:
        """Start webserver, daemon and code servers, and wait until they answer."""
        self._starts += 1
        self._logs.append(self.home / f"dagster-{self._starts}.log")
        process = Guarded(
            self._command,
            environment=_environment(self.home),
            log_path=self._logs[-1],
            grace_seconds=PATIENCE_SECONDS,  # for a run to report that it was interrupted
        )
        self._processes.enter_context(process)
        webserver = Webserver(self.url)

        def answers() -> bool:
            process.require_running("Dagster")
            return webserver.answers() and len(webserver.locations()) == len(self._locations)

        wait_until(answers, "Dagster's code locations are loaded", seen=lambda: last_lines_of(*self._logs))
        assert {error for _, error in webserver.locations()} == {None}

    def stop(self) -> None:
        """Stop all of it; runs are processes of its code servers."""
        self._processes.close()

    def wait(self, condition: Callable[[], Found], what: str) -> Found:
        """Wait for something in this Dagster and return it; in vain, report its runs and what it logged."""
        return wait_until(condition, what, seen=self._seen, pause_seconds=0.3)

    def _seen(self) -> str:
        runs = [record.dagster_run for record in self.instance.get_run_records(limit=40)]
        states = [
            f"{run.run_id} {run.job_name} {run.tags.get('dagster/partition')} {run.status.value} "
            f"{run.tags.get('cdi/failure_class', '')}"
            for run in runs
        ]
        return "\n".join([f"{len(runs)} runs, youngest first:", *states, last_lines_of(*self._logs)])

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:2000]) from error

    def runs(self, day: date) -> Sequence[dg.RunRecord]:
        """Return the records of all runs of a day, oldest first."""
        filters = dg.RunsFilter(tags={"dagster/partition": str(day)})
        return self.instance.get_run_records(filters, ascending=True)

    def terminate(self, run_id: str) -> None:
        answer = self.ask(_TERMINATE, id=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def failure_class(self, run_id: str) -> str | None:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.tags.get("cdi/failure_class")

    def wait_run(self, run_id: str) -> Any:
        return self.wait(lambda: self._ended(run_id), f"run {run_id} has ended")

    def _ended(self, run_id: str) -> dg.RunRecord | None:
        (record,) = self.instance.get_run_records(dg.RunsFilter(run_ids=[run_id]))
        return record if record.dagster_run.status.value in ENDED else None

    def checks_by_sensor(self, asset: str, name: str) -> list[bool]:
        """Return whether a check passed each time that a sensor reported it, youngest first.

        Runs report it too, of their own day, and whenever they end.
        """
        key = dg.AssetCheckKey(dg.AssetKey.from_user_string(asset), name)
        records = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=50)
        found: list[Any] = [record.event.dagster_event for record in records if record.event]
        kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        evaluations = [event.asset_check_evaluation_data for event in found if event.event_type is kind]
        return [evaluation.passed for evaluation in evaluations if "storage_day" in evaluation.metadata]

    def asked_for_at(self, run_id: str) -> datetime:
        """Return when a run was put into the queue, by the clock of the process that did it."""
        logs = self.wait(lambda: self.instance.all_logs(run_id), f"run {run_id} has its first event")
        return datetime.fromtimestamp(logs[0].timestamp, tz=UTC)

    @contextmanager
    def second_daemon(self) -> Iterator[Guarded]:
        """Run another daemon on the same home, as after a deployment that did not end the old one."""
        command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(self.home / "workspace.yaml")]
        with Guarded(command, environment=_environment(self.home), log_path=self.home / "second.log") as daemon:
            yield daemon

    def are_noted(self, schedules: Sequence[str]) -> bool:
        """Whether the daemon has noted when it first looked at schedules: from then on it makes up for ticks."""
        data = {state.name: state.instigator_data for state in self.instance.all_instigator_state()}
        return all(getattr(data[name], "last_iteration_timestamp", None) for name in schedules)

    def ticks(self, name: str) -> list[Any]:
        """Return the ticks of a schedule or sensor, youngest first."""
        states = [state for state in self.instance.all_instigator_state() if state.name == name]
        return [
            tick for state in states for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
        ]


@contextmanager
def gate_dagster(home: Path, *, locations: Sequence[str] = LOCATIONS) -> Iterator[GateDagster]:
    """Run it, with nothing automatic on; each location costs two processes that import Dagster."""
    dagster_home = home / "dagster_home"
    dagster_home.mkdir(parents=True)
    shutil.copyfile(REPOSITORY / "deploy" / "dagster.yaml", dagster_home / "dagster.yaml")
    (home / "workspace.yaml").write_text("load_from:\n" + "".join(_LOCATION.format(name) for name in locations))
    with hearing() as heard, reserved_port() as port:
        dagster = GateDagster(home, port, heard, locations)
        variables = {"CDI_ALERT_TARGET": heard.url, "CDI_DAGSTER_URL": dagster.url}
        (home / "environment.json").write_text(json.dumps(variables))
        try:
            dagster.start()
            with dg.DagsterInstance.from_config(str(dagster_home)) as dagster.instance:
                yield dagster
        finally:
            dagster.stop()


def _environment(home: Path) -> dict[str, str]:
    return os.environ | {
        "CDI_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster_home"),
        **json.loads((home / "environment.json").read_text()),
    }
