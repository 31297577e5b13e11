"""A real Dagster for the gate: webserver, daemon and three code locations on a home of its own; asked by GraphQL.

What runs did is read from the instance's own records, what was published from storage.
"""

import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from cdi_dagster.cli.servers import REPOSITORY, Guarded, free_port
from cdi_dagster.cli.webserver import Webserver
from cdi_dagster.coalescer import coalesce
from cdi_dagster.core.collections import Collection
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.published.read import read_mark
from cdi_dagster.resources.status_table import FileStatusTable
from cdi_dagster.settings import load_settings
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.gate.hearing import hearing

RECORDS = 30
ENDED = ("SUCCESS", "FAILURE", "CANCELED")

_WORKSPACE = """load_from:
  - python_module: {module_name: cdi_dagster_tests.gate.location_on_time, location_name: on_time}
  - python_module: {module_name: cdi_dagster_tests.gate.location_later, location_name: later}
  - python_module: {module_name: cdi_dagster_tests.gate.location_rapid, location_name: rapid}
"""
_START = {
    "schedule": """mutation($s: ScheduleSelector!) { startSchedule(scheduleSelector: $s) { __typename } }""",
    "sensor": """mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }""",
}
_LAUNCH = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
_EVALUATE = """mutation($s: SensorSelector!) { sensorDryRun(selectorData: $s, cursor: null) {
  ... on PythonError { message }
  ... on DryRunInstigationTick { evaluationResult {
    error { message } runRequests { runKey tags { key value } } } } } }"""
_BACKFILL = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) { __typename
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


class Place:
    """One code location: its storage, and its part of Dagster."""

    def __init__(self, dagster, name, home):
        self.dagster, self.name = dagster, name
        self.settings = load_settings(home=home / name)
        self.corporate = open_storage(self.settings.corporate_root)
        self.published = open_storage(self.settings.published_root)
        self.rows = FileStatusTable(self.settings.status_path)
        self._launches = home / name / "launches"

    def write(self, collection, day, *, seed=1, first_offset=0):
        firsts = {0: first_offset}
        options = {"records": RECORDS, "objects": 6, "kafka_partitions": 1, "first_offsets": firsts}
        write_sample(self.corporate, collection.on(day), seed=seed, **options)

    def coalesced(self, collection, *days):
        for day in days:
            self.write(collection, day)
            coalesce(self.corporate, collection.on(day))

    def start(self, kind, name):
        selector = {f"{kind}Name": name, "repositoryName": "__repository__", "repositoryLocationName": self.name}
        answer = self.dagster.ask(_START[kind], s=selector)
        assert "PythonError" not in json.dumps(answer), answer

    def evaluate(self, sensor):
        """Evaluate a sensor as the UI does, launching nothing, and return its run requests' keys and tags."""
        selector = {"sensorName": sensor, "repositoryName": "__repository__", "repositoryLocationName": self.name}
        result = self.dagster.ask(_EVALUATE, s=selector)["sensorDryRun"]["evaluationResult"]
        assert result["error"] is None, result
        return [(request["runKey"], request["tags"]) for request in result["runRequests"] or []]

    def click(self, collection, day, *, config=None, assets=None, tags=()):
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
        return answer["run"]["runId"]

    def backfill(self, collection, days):
        params = {
            "assetSelection": [{"path": path} for path in _assets(collection)],
            "partitionNames": [str(day) for day in days],
        }
        answer = self.dagster.ask(_BACKFILL, p=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return answer["backfillId"]

    def backfill_job(self, collection, days):
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

    def is_published(self, collection, day):
        mark = read_mark(self.published, collection.on(day))
        return mark is not None and mark.published

    def launches(self, day):
        """Return the fingerprints for which an ingestion of the day was launched."""
        return [fingerprint for fingerprint, *_ in self._ingestions(day)]

    def worker_of(self, run_id, day):
        """Return the process id of the run worker whose ingestion is at work, or None."""
        return next((int(process) for _, run, process in self._ingestions(day) if run == run_id), None)

    def _ingestions(self, day):
        lines = self._launches.read_text().splitlines() if self._launches.exists() else []
        return [line.split()[2:] for line in lines if line.split()[:2] == ["ingest_daily", str(day)]]

    @contextmanager
    def holding(self, day):
        """Let ingestions of the day go on only after the block."""
        hold = Path(f"{self._launches}.hold-{day}")
        hold.parent.mkdir(parents=True, exist_ok=True)
        hold.touch()
        try:
            yield
        finally:
            hold.unlink()


def _assets(collection: Collection):
    # Input and records are what the gate is about; tables would only make the runs longer.
    return [["corporate_storage", collection.asset_name], [collection.asset_name, "daily_records"]]


class GateDagster:
    """The running Dagster."""

    def __init__(self, home, url, instance, heard):
        self.home, self.url, self.instance, self.heard = home, url, instance, heard
        self.on_time, self.later, self.rapid = (Place(self, name, home) for name in ("on_time", "later", "rapid"))

    def ask(self, query, **variables):
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:2000]) from error

    def runs(self, day):
        """Return the records of all runs of a day, oldest first."""
        filters = dg.RunsFilter(tags={"dagster/partition": str(day)})
        return self.instance.get_run_records(filters, ascending=True)

    def failure_class(self, run_id):
        return self.instance.get_run_by_id(run_id).tags.get("cdi/failure_class")

    def wait_run(self, run_id, seconds=120):
        return until(lambda: self._ended(run_id), seconds, f"run {run_id} ends")

    def _ended(self, run_id):
        (record,) = self.instance.get_run_records(dg.RunsFilter(run_ids=[run_id]))
        return record if record.dagster_run.status.value in ENDED else None

    def checks(self, asset, name):
        """Return whether the evaluations of a check passed, youngest first."""
        key = dg.AssetCheckKey(dg.AssetKey.from_user_string(asset), name)
        records = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=50)
        found = [record.event.dagster_event for record in records if record.event]
        kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        return [event.asset_check_evaluation_data.passed for event in found if event.event_type is kind]

    @contextmanager
    def second_daemon(self):
        """Run another daemon on the same home, as after a deployment that did not end the old one."""
        command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(self.home / "workspace.yaml")]
        with Guarded(command, environment=_environment(self.home), log_path=self.home / "second.log") as daemon:
            yield daemon

    def ticks(self, name):
        """Return the ticks of a schedule or sensor, youngest first."""
        states = [state for state in self.instance.all_instigator_state() if state.name == name]
        return [
            tick for state in states for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
        ]


def until(found, seconds, what):
    """Wait for something to be true and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {seconds} s")


def next_due_time():
    """Return a minute that Dagster will be up before: the next but one, or the one after it."""
    return (datetime.now(UTC) + timedelta(seconds=110)).replace(second=0, microsecond=0)


@contextmanager
def gate_dagster(home: Path, due_at: datetime):
    """Run it, with nothing automatic on."""
    dagster_home = home / "dagster_home"
    dagster_home.mkdir(parents=True)
    shutil.copyfile(REPOSITORY / "deploy" / "dagster.yaml", dagster_home / "dagster.yaml")
    (home / "workspace.yaml").write_text(_WORKSPACE)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(home / "workspace.yaml"), "-h", "127.0.0.1"]
    with ExitStack() as stack:
        heard = stack.enter_context(hearing())
        variables = {"TEST_DUE_TIME_ON_TIME": f"{due_at:%H:%M}", "ALERT_TARGET": heard.url, "DAGSTER_URL": url}
        (home / "environment.json").write_text(json.dumps({f"CDI_{name}": value for name, value in variables.items()}))
        dagster = stack.enter_context(
            Guarded([*command, "-p", str(port)], environment=_environment(home), log_path=home / "dagster.log")
        )
        webserver = Webserver(url)
        deadline = time.monotonic() + 180
        while not (webserver.answers() and len(webserver.locations()) == 3):
            dagster.require_running("Dagster")
            assert time.monotonic() < deadline, dagster.log()[-2000:]
            time.sleep(0.3)
        assert [error for _, error in webserver.locations()] == [None, None, None]
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(dagster_home)))
        yield GateDagster(home, url, instance, heard)


def _environment(home: Path):
    return os.environ | {
        "CDI_HOME": str(home),
        "CDI_TEST_DUE_TIME_LATER": "00:00",
        "CDI_TEST_DUE_TIME_RAPID": "00:00",
        "DAGSTER_HOME": str(home / "dagster_home"),
        **json.loads((home / "environment.json").read_text()),
    }
