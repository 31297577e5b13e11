"""The demo, whole: real Dagster processes, real Spark, and nothing left running however it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from freezegun import freeze_time

from cdi_dagster.cli.app import cdi
from cdi_dagster.cli.demo import coalesce_days
from cdi_dagster.cli.demo_home import DemoHome
from cdi_dagster.cli.demo_runs import materialise_days
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import run_prefix
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, wait_until


def demo_command(home: Path) -> list[str]:
    options = ["--home", str(home), "--days", "2", "--records", "300", "--json"]
    return [sys.executable, "-m", "cdi_dagster.cli", "demo", *options]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}


def processes_of(home: Path) -> set[int]:
    """Process ids whose environment or command line names the home."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(home).encode() in text:
                found.add(int(entry.name))
    return found


@pytest.mark.spark
@pytest.mark.daemon
@pytest.mark.timeout(1800)
def test_demo_publishes_the_good_day_and_nothing_of_the_bad_one_through_real_runs(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    # Settings of a real installation in the environment must not be used: they would put invented data there.
    aside = {"CDI_CORPORATE_ROOT": "s3://production", "CDI_DEPLOYMENT": "emr", "CDI_MAX_REJECTED": "100%"}
    ended = subprocess.run(
        demo_command(home), env={**environment(), **aside}, capture_output=True, text=True, timeout=1500, check=False
    )
    assert ended.returncode == 0, ended.stderr
    good, bad = json.loads(ended.stdout)["days"]

    assert (good["status"], good["report"]["totals"]["published"]) == ("SUCCESS", 300)
    assert {table["rows"] for table in good["tables"]["tables"]} == {300}
    assert [good["checks"][name] for name in ("counts_reconcile", "nothing_rejected", "offsets_are_whole")] == [
        True
    ] * 3
    assert (bad["status"], bad["report"]["totals"]["rejected"]) == ("RECORDS_REJECTED", 24)
    published = sorted(path.name for path in (home / "published/corporate_data_ingestion/json/daily").iterdir())
    assert len(published) == 1

    with dg.DagsterInstance.from_config(str(home / "dagster_home")) as instance:
        for day, status in ((good, dg.DagsterRunStatus.SUCCESS), (bad, dg.DagsterRunStatus.FAILURE)):
            run = instance.get_run_by_id(day["run_id"])
            assert run is not None
            assert (run.status, run.tags["dagster/partition"]) == (status, day["storage_day"])
            # Only with the code location it came from can a run be re-executed from the UI.
            assert run.remote_job_origin is not None
    assert processes_of(home) == set()


@pytest.mark.daemon
@pytest.mark.kill
@pytest.mark.parametrize(("how", "exit_code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_demo_that_is_stopped_leaves_nothing_running(tmp_path: Path, how: signal.Signals, exit_code: int) -> None:
    home = tmp_path / "demo"
    process = subprocess.Popen(
        demo_command(home),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has what it starts in the background ignore SIGINT, the tests and all below them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    said = next(line for line in process.stderr if line.startswith("Starting Dagster"))
    assert said
    assert processes_of(home)
    process.send_signal(how)
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == exit_code
    wait_until(lambda: not processes_of(home), "nothing of it is running", seen=lambda: processes_of(home))


def test_a_day_that_was_half_written_is_written_again_and_its_offsets_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDI_HOME", "restored after the test")
    home = DemoHome.open(tmp_path / "demo", days=2)
    home.write_days(300, lambda text: None)
    objects = sorted((tmp_path / "demo/corporate").rglob("*.jsonl.gz"))
    first = {path: path.read_bytes() for path in objects}
    objects[0].unlink()
    home.write_days(300, lambda text: None)
    assert {path: path.read_bytes() for path in sorted((tmp_path / "demo/corporate").rglob("*.jsonl.gz"))} == first


def test_the_days_of_a_home_stay_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDI_HOME", "restored after the test")
    home = DemoHome.open(tmp_path / "demo", days=4)
    assert [day.bad_envelopes > 0 for day in home.days] == [False, True, False, False]
    again = DemoHome.open(tmp_path / "demo", days=2)
    assert again.days == home.days[:2]


def test_two_weeks_of_a_keyed_collection_end_with_the_last_friday_and_stay_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDI_HOME", "restored after the test")
    with freeze_time("2023-06-21T08:00:00+00:00"):  # a Wednesday
        home = DemoHome.open_keyed(tmp_path / "demo")
    assert (str(home.days[0].storage_day), str(home.days[-1].storage_day)) == ("2023-06-02", "2023-06-15")
    assert [str(snapshot.export_day) for snapshot in home.snapshots] == ["2023-06-09", "2023-06-16"]
    assert not any(day.bad_envelopes for day in home.days)
    with freeze_time("2023-07-07T08:00:00+00:00"):
        assert DemoHome.open_keyed(tmp_path / "demo").days == home.days
    home.write_days(100, lambda text: None)
    coalesce_days(home)
    assert len(list((tmp_path / "demo/corporate").rglob("*.jsonl.gz"))) == 14


class ScriptedBackfill:
    """A webserver whose backfill ends one run more at each look, the last of them failed."""

    def __init__(self, days: list[str]) -> None:
        self.days, self.ended = days, 0

    def assets_of(self, collection: Collection) -> list[str]:
        return [collection.id]

    def launch_backfill(self, assets: list[str], partitions: list[str], **_: Any) -> str:
        assert (assets, partitions) == (["calculator:calculationParts"], self.days)
        return "b1"

    def runs_of_backfill(self, backfill_id: str) -> list[dict[str, Any]]:
        self.ended += 1
        states = {day: "SUCCESS" if n < self.ended else "STARTED" for n, day in enumerate(self.days)}
        states[self.days[-1]] = "FAILURE" if self.ended >= len(self.days) else "QUEUED"
        return [
            {"runId": f"run-{day}", "status": state, "tags": [{"key": "dagster/partition", "value": day}]}
            for day, state in states.items()
        ]


def test_each_day_of_a_backfill_is_reported_once_as_its_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDI_HOME", "restored after the test")
    monkeypatch.setattr("cdi_dagster.cli.demo_runs._POLL_SECONDS", 0)
    home = DemoHome.open_keyed(tmp_path / "demo")
    days = [str(day.storage_day) for day in home.days]
    failure = {"failure_class": "DKS_FORBIDDEN", "cause": "refused"}
    key = run_prefix(home.collection.on(home.days[-1].storage_day), f"run-{days[-1]}")
    home.published.write(f"{key}failure.json", json.dumps(failure).encode())
    running: Any = SimpleNamespace(require_running=lambda what: None)
    webserver: Any = ScriptedBackfill(days)
    results = list(materialise_days(home, webserver, running))
    assert [str(result.storage_day) for result in results] == days
    assert [result.status for result in results] == [*["SUCCESS"] * 13, "DKS_FORBIDDEN"]


def test_a_folder_with_other_days_has_no_two_weeks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDI_HOME", "restored after the test")
    DemoHome.open(tmp_path / "demo", days=4)
    with pytest.raises(CdiError, match="not two weeks from a Friday on") as raised:
        DemoHome.open_keyed(tmp_path / "demo")
    assert "--home" in raised.value.next_step
    refused = CliRunner().invoke(cdi, ["demo", "--keyed", "--days", "3"])
    assert (refused.exit_code, "leave --days out" in refused.stderr) == (2, True)


def test_a_day_that_the_coalescer_did_not_finish_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDI_HOME", "restored after the test")
    home = DemoHome.open(tmp_path / "demo", days=2)
    home.write_days(1_000, lambda text: None)
    damaged = sorted((tmp_path / "demo/corporate").rglob("*.jsonl.gz"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(CdiError, match=damaged.name) as raised:
        coalesce_days(home)
    assert raised.value.failure_class is FailureClass.COALESCER_FAILED
