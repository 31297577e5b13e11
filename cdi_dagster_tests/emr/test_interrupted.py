"""The orchestrator is killed, stopped or cancelled while a cluster runs: real processes, real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cdi_dagster_tests.emr import run_worker
from cdi_dagster_tests.emr.launches import Bench
from cdi_dagster_tests.instance import lines_of_run
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, last_lines_of, wait_until

pytestmark = pytest.mark.kill


class Orchestrator:
    """Run workers on one DAGSTER_HOME."""

    def __init__(self, bench: Bench, home: Path) -> None:
        self.bench = bench
        self.home = home
        self.go = bench.folder / "go"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        self.instance = dg.DagsterInstance.from_config(str(home))
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *plays: list[str], parent: str | None = None, **config: Any) -> "subprocess.Popen[bytes]":
        requested = json.dumps(
            {"launcher": self.bench.config(**config), "arguments": ["--plays", json.dumps(plays or [self.held])]}
        )
        program = f"import sys; from {run_worker.__name__} import main; sys.exit(main(*sys.argv[1:]))"
        command = [sys.executable, "-c", program, requested, *([parent] if parent else [])]
        environment = {**os.environ, "DAGSTER_HOME": str(self.home)}
        with (self.home / f"worker-{len(self.started)}.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.started.append(process)
        return process

    @property
    def held(self) -> list[str]:
        """A step that works until the test lets it go."""
        return ["progress:one of two", f"wait:{self.go}", "progress:two of two", "report"]

    def newest(self) -> dg.DagsterRun:
        return self.instance.get_runs(limit=1)[0]

    def logged(self, run_id: str) -> list[str]:
        return lines_of_run(self.instance, run_id)

    def wait_for_line(self, word: str) -> str:
        """Wait until the newest run's page has a word; return the run's id."""

        def is_logged() -> bool:
            runs = self.instance.get_runs(limit=1)
            return bool(runs) and any(word in line for line in self.logged(runs[0].run_id))

        wait_until(is_logged, f"a run logs {word!r}", seen=self._seen)
        return self.newest().run_id

    def _seen(self) -> str:
        logs = [self.home / f"worker-{number}.log" for number in range(len(self.started))]
        return "\n".join(
            ["", *(f"{run.run_id} {run.status.value}" for run in self.instance.get_runs()), last_lines_of(*logs)]
        )


@pytest.fixture
def orchestrator(bench: Bench, tmp_path: Path) -> Iterator[Orchestrator]:
    made = Orchestrator(bench, tmp_path / "dagster_home")
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.wait()
    made.instance.dispose()


def test_a_killed_run_worker_is_followed_by_one_that_resumes_its_attempt(orchestrator: Orchestrator) -> None:
    bench = orchestrator.bench
    first = orchestrator.start()
    first_run = orchestrator.wait_for_line("one of two")
    first.kill()
    first.wait()
    [cluster] = bench.emr.live()

    second = orchestrator.start(parent=first_run)
    second_run = orchestrator.wait_for_line("resuming its attempt 1")
    assert second_run != first_run
    orchestrator.go.touch()
    assert second.wait(timeout=PATIENCE_SECONDS) == 0
    logged = orchestrator.logged(second_run)
    # `cdi clusters` goes by this tag: a cluster that was resumed is no orphan.
    assert {"Key": "cdi:run_id", "Value": second_run} in cluster.request["Tags"]
    assert list(bench.emr.clusters) == [cluster.cluster_id]
    assert bench.emr.calls["RunJobFlow"] == 1
    assert [line for line in logged if line in ("one of two", "two of two")] == ["one of two", "two of two"]
    assert any(line.startswith("EVIDENCE") and cluster.cluster_id in line for line in logged)


def test_a_job_that_ended_while_nobody_looked_counts_for_the_next_run_of_the_day(orchestrator: Orchestrator) -> None:
    bench = orchestrator.bench
    first = orchestrator.start()
    orchestrator.wait_for_line("one of two")
    first.kill()
    first.wait()
    orchestrator.go.touch()
    bench.emr.wait(lambda: bench.emr.live() == [])

    # Not a re-execution: a run of its own, as the sensor or a click makes it.
    second = orchestrator.start()
    assert second.wait(timeout=PATIENCE_SECONDS) == 0
    assert "two of two" in orchestrator.logged(orchestrator.newest().run_id)
    assert len(bench.emr.clusters) == 1


def test_a_cancelled_run_ends_its_cluster(orchestrator: Orchestrator) -> None:
    process = orchestrator.start()
    run_id = orchestrator.wait_for_line("one of two")
    # What the Terminate button does: it marks the run, then signals the worker.
    orchestrator.instance.report_run_canceling(orchestrator.newest())
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=PATIENCE_SECONDS)
    [cluster] = orchestrator.bench.emr.clusters.values()
    orchestrator.bench.emr.wait(lambda: cluster.has_ended)
    assert cluster.reason_code == "USER_REQUEST"
    assert orchestrator.newest().status is dg.DagsterRunStatus.CANCELED
    assert any("was cancelled" in line for line in orchestrator.logged(run_id))


def test_a_stopped_orchestrator_leaves_the_cluster_running_for_the_next(orchestrator: Orchestrator) -> None:
    process = orchestrator.start()
    run_id = orchestrator.wait_for_line("one of two")
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=PATIENCE_SECONDS)
    time.sleep(0.3)
    [cluster] = orchestrator.bench.emr.live()
    assert any("left running" in line for line in orchestrator.logged(run_id))

    second = orchestrator.start(parent=run_id)
    orchestrator.wait_for_line("resuming its attempt 1")
    orchestrator.go.touch()
    assert second.wait(timeout=PATIENCE_SECONDS) == 0
    assert list(orchestrator.bench.emr.clusters) == [cluster.cluster_id]


def test_a_worker_killed_before_emrs_response_finds_the_cluster_by_name(orchestrator: Orchestrator) -> None:
    bench = orchestrator.bench
    bench.emr.start_seconds = 1.0
    bench.emr.faults.lose_answer.append("RunJobFlow")
    first = orchestrator.start()
    first_run = orchestrator.wait_for_line("EMR's response was lost")
    first.kill()
    first.wait()

    second = orchestrator.start(parent=first_run)
    orchestrator.wait_for_line("the request had been accepted")
    orchestrator.go.touch()
    assert second.wait(timeout=PATIENCE_SECONDS) == 0
    assert len(bench.emr.clusters) == 1
