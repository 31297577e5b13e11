"""A real Dagster that drives emulated EMR: a person ends a run, a run worker dies; what becomes of their clusters."""

import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

import cdi_dagster
from cdi_dagster.cli.servers import REPOSITORY, dagster_dev
from cdi_dagster.cli.webserver import Webserver
from cdi_dagster.coalescer import coalesce
from cdi_dagster.core.storage_keys import ingestion_lease_key
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.names import daily_records_key, input_key
from cdi_dagster.published.read import read_mark
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.collections import EQUALITY
from cdi_dagster_tests.emr.emulator import create_status_table
from cdi_dagster_tests.emr.launches import DAY, Bench
from cdi_dagster_tests.waiting import reserved_port, wait_until

pytestmark = [pytest.mark.daemon, pytest.mark.kill, pytest.mark.spark, pytest.mark.timeout(1800)]
ENTRY_POINT = Path(cdi_dagster.__file__).parent / "spark" / "entry_points" / "ingest_daily.py"


class Operator:
    """Somebody at the UI, and the account that the runs work on."""

    def __init__(self, bench: Bench, webserver: Webserver, instance: dg.DagsterInstance) -> None:
        self.bench, self._webserver, self._instance = bench, webserver, instance
        self.published = open_storage(bench.published_root)

    def click(self, storage_day: date) -> str:
        """Materialise a day's input and records, one step on a cluster."""
        keys = [tuple(key.path) for key in (input_key(EQUALITY), daily_records_key(EQUALITY))]
        selected = [asset for asset in self._webserver.assets_of(EQUALITY) if asset.path in keys]
        return self._webserver.launch_run(selected, str(storage_day), tags={})

    def terminate(self, run_id: str) -> None:
        query = "mutation($id: String!) { terminateRun(runId: $id) { __typename } }"
        body = json.dumps({"query": query, "variables": {"id": run_id}}).encode()
        requested = urllib.request.Request(
            f"{self._webserver.url}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(requested, timeout=30) as answer:
            assert json.load(answer)["data"]["terminateRun"]["__typename"] == "TerminateRunSuccess"

    def kill_worker(self, run_id: str) -> None:
        [pid] = [
            int(found[1]) for line in self.logged(run_id) if (found := re.search(r"in process \(pid: (\d+)\)", line))
        ][:1]
        os.kill(pid, signal.SIGKILL)

    def logged(self, run_id: str) -> list[str]:
        return [entry.user_message for entry in self._instance.all_logs(run_id)]

    def wait_for_line(self, run_id: str, word: str) -> None:
        wait_until(
            lambda: any(word in line for line in self.logged(run_id)),
            f"run {run_id} logs {word!r}",
            seen=lambda: "\n".join(self.logged(run_id)[-30:]),
        )

    def wait_for_end(self, run_id: str) -> str:
        def run() -> dg.DagsterRun:
            found = self._instance.get_run_by_id(run_id)
            assert found is not None
            return found

        seen = lambda: "\n".join([run().status.value, *self.logged(run_id)[-30:]])  # noqa: E731
        wait_until(lambda: run().is_finished, f"run {run_id} has ended", seen=seen)
        return run().status.value


@pytest.fixture
def operator(bench: Bench) -> Iterator[Operator]:
    create_status_table(bench.emr.client("dynamodb"), bench.status_table)
    bench.run_spark(ENTRY_POINT, master="local[2]")
    corporate = open_storage(f"s3://{bench.bucket}/corporate")
    for storage_day in (DAY, DAY + timedelta(days=1)):
        write_sample(corporate, EQUALITY.on(storage_day), records=50, objects=4, seed=1)
        coalesce(corporate, EQUALITY.on(storage_day))
    home = bench.folder / "home" / "dagster_home"
    home.mkdir(parents=True)
    shipped = (REPOSITORY / "deploy" / "dagster.yaml").read_text()
    # A lost worker is noticed, and its slot free, in seconds for the test's sake; the rest is as production has it.
    quick = shipped.replace("poll_interval_seconds: 20", "poll_interval_seconds: 2")
    (home / "dagster.yaml").write_text(quick.replace("run_end_seconds: 60", "run_end_seconds: 1"))
    with reserved_port() as port, DevelopmentKeyService() as keys:
        environment = os.environ | bench.settings(dks_url=keys.url, first_storage_day=DAY) | {"DAGSTER_HOME": str(home)}
        with dagster_dev(environment, port=port, log_path=bench.folder / "dagster.log") as dagster:
            webserver = Webserver(f"http://127.0.0.1:{port}")

            def is_up() -> bool:
                dagster.require_running("Dagster")
                return webserver.answers() and bool(webserver.locations())

            wait_until(is_up, "Dagster answers", seen=dagster.log)
            assert [error for _, error in webserver.locations()] == [None]
            # Only now: two processes that make the same home at once are in each other's way.
            with dg.DagsterInstance.from_config(str(home)) as instance:
                yield Operator(bench, webserver, instance)


def test_terminating_a_run_ends_its_cluster_and_one_whose_worker_is_killed_or_whose_step_ends_is_left_to_the_next(
    operator: Operator,
) -> None:
    emr = operator.bench.emr
    operator.bench.hold_clusters()
    ended = operator.click(DAY)
    operator.wait_for_line(ended, "is BOOTSTRAPPING")
    operator.terminate(ended)
    assert operator.wait_for_end(ended) == "CANCELED"
    [cluster] = emr.clusters.values()
    emr.wait(lambda: cluster.has_ended)
    assert cluster.reason_code == "USER_REQUEST"

    next_day = DAY + timedelta(days=1)
    lost = operator.click(next_day)
    operator.wait_for_line(lost, "is BOOTSTRAPPING")
    operator.kill_worker(lost)
    # Run monitoring notices it; until then the day has a live run, and another would stop as its duplicate.
    assert operator.wait_for_end(lost) == "FAILURE"
    [cluster] = emr.live()
    # Its lease of the day runs out in a minute, which the test does not wait for.
    operator.published.delete([ingestion_lease_key(EQUALITY.on(next_day))])
    after = operator.click(next_day)
    operator.wait_for_line(after, "resuming its attempt 1")
    operator.bench.let_clusters_go()
    assert operator.wait_for_end(after) == "SUCCESS"
    mark = read_mark(operator.published, EQUALITY.on(next_day))
    assert mark is not None
    assert mark.published == 50
    assert list(emr.clusters)[1:] == [cluster.cluster_id]
    assert read_mark(operator.published, EQUALITY.on(DAY)) is None

    # Two days at once, of which the pool lets one be ingested at a time: the second takes the cluster of the first.
    emr.idle_scale = 1.0
    both = [operator.click(storage_day) for storage_day in (DAY, next_day)]
    assert [operator.wait_for_end(run_id) for run_id in both] == ["SUCCESS"] * 2
    [_, _, shared] = emr.clusters.values()
    assert [step.state for step in shared.steps] == ["COMPLETED"] * 2
    assert shared.reason == "Terminated by user request"
