"""A real Dagster for the gate: webserver, daemon and two code locations on a home of its own; asked by GraphQL.

What runs did is read from the instance's own records, what was published from storage.
"""

import json
import os
import shutil
import sys
import time
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
from cdi_dagster.ingestion.pinning import published_mark
from cdi_dagster.settings import load_settings
from cdi_dagster.storage.interface import open_storage

RECORDS = 30
ENDED = ("SUCCESS", "FAILURE", "CANCELED")

_WORKSPACE = """load_from:
  - python_module: {module_name: cdi_dagster_tests.gate.location_on_time, location_name: on_time}
  - python_module: {module_name: cdi_dagster_tests.gate.location_later, location_name: later}
"""
_START = {
    "schedule": """mutation($s: ScheduleSelector!) { startSchedule(scheduleSelector: $s) { __typename } }""",
    "sensor": """mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }""",
}
_LAUNCH = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
_BACKFILL = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) { __typename
  ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


class Place:
    """One code location: its storage, and its part of Dagster."""

    def __init__(self, dagster, name, home):
        self.dagster, self.name = dagster, name
        self.settings = load_settings(home=home / name)
        self.corporate = open_storage(self.settings.corporate_root)
        self.published = open_storage(self.settings.published_root)
        self._launches = home / name / "launches"

    def write(self, collection, day, *, seed=1, first_offset=0):
        firsts = {0: first_offset}
        options = {"records": RECORDS, "objects": 6, "kafka_partitions": 1, "first_offsets": firsts}
        write_sample(self.corporate, collection, day, seed=seed, **options)

    def coalesced(self, collection, *days):
        for day in days:
            self.write(collection, day)
            coalesce(self.corporate, collection, day)

    def start(self, kind, name):
        selector = {f"{kind}Name": name, "repositoryName": "__repository__", "repositoryLocationName": self.name}
        answer = self.dagster.ask(_START[kind], s=selector)
        assert "PythonError" not in json.dumps(answer), answer

    def click(self, collection, day, *, config=None, assets=None):
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
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": str(day)}]},
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

    def is_published(self, collection, day):
        mark = published_mark(self.published, collection, day)
        return mark is not None and mark["published"]

    def launches(self, day):
        """Return the fingerprints for which an ingestion of the day was launched."""
        lines = self._launches.read_text().splitlines() if self._launches.exists() else []
        return [line.split()[2] for line in lines if line.split()[:2] == ["ingest_daily", str(day)]]


def _assets(collection: Collection):
    # Input and records are what the gate is about; tables would only make the runs longer.
    return [["corporate_storage", collection.asset_name], [collection.asset_name, "daily_records"]]


class GateDagster:
    """The running Dagster."""

    def __init__(self, home, url, instance):
        self.url, self.instance = url, instance
        self.on_time = Place(self, "on_time", home)
        self.later = Place(self, "later", home)

    def ask(self, query, **variables):
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

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
    environment = os.environ | {
        "CDI_HOME": str(home),
        "CDI_TEST_DUE_TIME_ON_TIME": f"{due_at:%H:%M}",
        "CDI_TEST_DUE_TIME_LATER": "00:00",
        "DAGSTER_HOME": str(dagster_home),
    }
    port = free_port()
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(home / "workspace.yaml"), "-h", "127.0.0.1"]
    with ExitStack() as stack:
        dagster = stack.enter_context(
            Guarded([*command, "-p", str(port)], environment=environment, log_path=home / "dagster.log")
        )
        webserver = Webserver(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 180
        while not (webserver.answers() and len(webserver.locations()) == 2):
            dagster.require_running("Dagster")
            assert time.monotonic() < deadline, dagster.log()[-2000:]
            time.sleep(0.3)
        assert [error for _, error in webserver.locations()] == [None, None]
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(dagster_home)))
        yield GateDagster(home, webserver.url, instance)
