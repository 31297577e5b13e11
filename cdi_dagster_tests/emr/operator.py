"""A real Dagster that drives emulated EMR, and somebody at its UI; shared by the tests."""

import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date

import dagster as dg

from cdi_dagster.cli.servers import REPOSITORY, dagster_dev
from cdi_dagster.cli.webserver import Webserver
from cdi_dagster.coalescer import coalesce
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.names import daily_records_key, input_key
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.collections import EQUALITY
from cdi_dagster_tests.emr.emulator import create_status_table
from cdi_dagster_tests.emr.launches import Bench
from cdi_dagster_tests.instance import lines_of_run
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, reserved_port, wait_until


class Operator:
    """Somebody at the UI, and the account that the runs work on."""

    def __init__(
        self, bench: Bench, webserver: Webserver, instance: dg.DagsterInstance, environment: dict[str, str]
    ) -> None:
        self.bench, self.webserver, self.instance, self.environment = bench, webserver, instance, environment
        self.published = open_storage(bench.published_root)

    def click(self, storage_day: date) -> str:
        """Materialise a day's input and records, one step on a cluster."""
        keys = [tuple(key.path) for key in (input_key(EQUALITY), daily_records_key(EQUALITY))]
        selected = [asset for asset in self.webserver.assets_of(EQUALITY) if asset.path in keys]
        return self.webserver.launch_run(selected, str(storage_day), tags={})

    def terminate(self, run_id: str) -> None:
        query = "mutation($id: String!) { terminateRun(runId: $id) { __typename } }"
        body = json.dumps({"query": query, "variables": {"id": run_id}}).encode()
        requested = urllib.request.Request(
            f"{self.webserver.url}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(requested, timeout=PATIENCE_SECONDS) as answer:
            assert json.load(answer)["data"]["terminateRun"]["__typename"] == "TerminateRunSuccess"

    def kill_worker(self, run_id: str) -> None:
        [pid] = [
            int(found[1]) for line in self.logged(run_id) if (found := re.search(r"in process \(pid: (\d+)\)", line))
        ][:1]
        os.kill(pid, signal.SIGKILL)

    def logged(self, run_id: str) -> list[str]:
        return lines_of_run(self.instance, run_id)

    def wait_for_line(self, run_id: str, word: str) -> None:
        wait_until(
            lambda: any(word in line for line in self.logged(run_id)),
            f"run {run_id} logs {word!r}",
            seen=lambda: "\n".join(self.logged(run_id)[-30:]),
        )

    def wait_for_end(self, run_id: str) -> str:
        def run() -> dg.DagsterRun:
            found = self.instance.get_run_by_id(run_id)
            assert found is not None
            return found

        seen = lambda: "\n".join([run().status.value, *self.logged(run_id)[-30:]])  # noqa: E731
        wait_until(lambda: run().is_finished, f"run {run_id} has ended", seen=seen)
        return run().status.value

    def wait_for_backfill(self, backfill_id: str, days: int) -> list[dg.DagsterRun]:
        """Wait until each day's run has ended, one after another with the deadline anew, and return the runs."""

        def runs() -> list[dg.DagsterRun]:
            return list(self.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id})))

        def seen() -> str:
            return "\n".join(f"{run.tags['dagster/partition']} {run.status.value}" for run in runs())

        for ended in range(1, days + 1):
            wait_until(
                lambda ended=ended: sum(run.is_finished for run in runs()) >= ended,  # type: ignore[misc]
                f"{ended} of {days} runs of the backfill have ended",
                seen=seen,
                pause_seconds=1,
            )
        return runs()


@contextmanager
def operator_of(
    bench: Bench, storage_days: Sequence[date], *, records: int = 50, runs_at_a_time: int = 4
) -> Iterator[Operator]:
    """Run Dagster on an account whose days are coalesced."""
    create_status_table(bench.emr.client("dynamodb"), bench.status_table)
    corporate = open_storage(f"s3://{bench.bucket}/corporate")
    for storage_day in storage_days:
        write_sample(corporate, EQUALITY.on(storage_day), records=records, objects=4, seed=1)
        coalesce(corporate, EQUALITY.on(storage_day))
    home = bench.folder / "home" / "dagster_home"
    home.mkdir(parents=True)
    shipped = (REPOSITORY / "deploy" / "dagster.yaml").read_text()
    # A lost worker is noticed, and its slot free, in seconds for the test's sake; the rest is as production has it.
    quick = shipped.replace("poll_interval_seconds: 20", "poll_interval_seconds: 2")
    quick = quick.replace("run_end_seconds: 60", "run_end_seconds: 1")
    (home / "dagster.yaml").write_text(
        quick.replace("max_concurrent_runs: 4", f"max_concurrent_runs: {runs_at_a_time}")
    )
    with reserved_port() as port, DevelopmentKeyService() as keys:
        first = min(storage_days)
        environment = (
            os.environ | bench.settings(dks_url=keys.url, first_storage_day=first) | {"DAGSTER_HOME": str(home)}
        )
        with dagster_dev(environment, port=port, log_path=bench.folder / "dagster.log") as dagster:
            webserver = Webserver(f"http://127.0.0.1:{port}")

            def is_up() -> bool:
                dagster.require_running("Dagster")
                return webserver.answers() and bool(webserver.locations())

            wait_until(is_up, "Dagster answers", seen=dagster.log)
            assert [error for _, error in webserver.locations()] == [None]
            # Only now: two processes that make the same home at once are in each other's way.
            with dg.DagsterInstance.from_config(str(home)) as instance:
                yield Operator(bench, webserver, instance, environment)
