"""A backfill by a real Dagster on emulated EMR, however it is started: no more clusters than runs at a time.

Four days, two runs at a time; or as many days as `CDI_TEST_BACKFILL_DAYS` has, and four at a time: a month takes a
quarter of an hour.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta

import dagster as dg
import pytest

from cdi_dagster.cli.servers import REPOSITORY
from cdi_dagster.core.days import export_day_of
from cdi_dagster.published.read import read_mark
from cdi_dagster_tests.collections import EQUALITY
from cdi_dagster_tests.emr import quick_step
from cdi_dagster_tests.emr.launches import BUNDLE, DAY, Bench
from cdi_dagster_tests.emr.operator import Operator, operator_of

pytestmark = [pytest.mark.daemon, pytest.mark.timeout(3600)]
DAYS = [DAY + timedelta(days=number) for number in range(int(os.environ.get("CDI_TEST_BACKFILL_DAYS", "4")))]
RUNS_AT_A_TIME = min(len(DAYS) // 2, 4)
"""Four is `max_concurrent_runs` of deploy/dagster.yaml."""
RECORDS = 5


@pytest.fixture
def operator(bench: Bench) -> Iterator[Operator]:
    copies = [
        f'cp {shlex.quote(quick_step.__file__)} "$CDI_PREFIX/entry_points/{name}.py"'
        for name in ("ingest_daily", "publish_tables")
    ]
    script = "\n".join(['set -e; mkdir -p "$CDI_PREFIX/entry_points"', *copies])
    bench.emr.client("s3").put_object(Bucket=bench.bucket, Key=f"bundles/{BUNDLE}/bootstrap.sh", Body=script.encode())
    bench.emr.step_environment["PYTHONPATH"] = str(REPOSITORY)  # the tests are not installed
    bench.emr.idle_scale = 1.0
    with operator_of(bench, DAYS, records=RECORDS, runs_at_a_time=RUNS_AT_A_TIME) as operator:
        # As docs/runbook.md has it for a month on EMR.
        operator.instance.event_log_storage.set_concurrency_slots("cdi_equality", RUNS_AT_A_TIME)
        yield operator


def test_days_that_are_relaunched_and_days_that_are_backfilled_in_the_ui_start_no_more_clusters_than_run_at_a_time(
    operator: Operator,
) -> None:
    emr = operator.bench.emr
    for start in (_relaunched, _backfilled_in_the_ui):
        emr.calls.clear()
        runs = operator.wait_for_backfill(start(operator), len(DAYS))
        assert sorted(run.tags["dagster/partition"] for run in runs) == [str(day) for day in DAYS]
        failed = [run.run_id for run in runs if run.status.value != "SUCCESS"]
        assert not failed, "\n".join(operator.logged(failed[0])[-30:])
        assert 1 <= emr.calls["RunJobFlow"] <= RUNS_AT_A_TIME, _story(operator, runs)
        emr.wait(lambda: emr.live() == [], "clusters end when nothing that could use them is queued")
        assert {cluster.reason for cluster in emr.clusters.values()} == {"Terminated by user request"}
    # Both steps of each day, twice.
    steps = [step for cluster in emr.clusters.values() for step in cluster.steps]
    assert [step.state for step in steps] == ["COMPLETED"] * (4 * len(DAYS))
    for day in DAYS:
        mark = read_mark(operator.published, EQUALITY.on(day))
        assert mark is not None
        assert mark.published == RECORDS


def _story(operator: Operator, runs: Sequence[dg.DagsterRun]) -> str:
    """Return what each cluster did, and when each run came by one and let it go."""
    clusters = [
        f"{cluster.created_at:.1f} to {cluster.ended_at or 0:.1f} {cluster.cluster_id}: {len(cluster.steps)} steps, "
        f"{cluster.reason}"
        for cluster in operator.bench.emr.clusters.values()
    ]
    lines = [
        f"{entry.timestamp:.1f} {run.tags['dagster/partition']} {entry.user_message}"
        for run in runs
        for entry in operator.instance.all_logs(run.run_id)
        if re.search(r"Attempt|takes|cluster j-|Started execution of run|Finished steps", entry.user_message or "")
    ]
    return "\n".join(["", *clusters, *sorted(lines)])


def _relaunched(operator: Operator) -> str:
    first, last = export_day_of(DAYS[0]), export_day_of(DAYS[-1])
    command = [sys.executable, "-m", "cdi_dagster.cli", "relaunch", "--collection", EQUALITY.id, "--json"]
    command += ["--export-day", str(first), "--to", str(last), "--url", operator.webserver.url]
    printed = subprocess.run(command, env=operator.environment, check=True, capture_output=True, text=True)
    return str(json.loads(printed.stdout)["backfill_id"])


def _backfilled_in_the_ui(operator: Operator) -> str:
    """Launch what the UI launches for "Materialize" on all partitions of the collection's assets."""
    assets = operator.webserver.assets_of(EQUALITY)
    return operator.webserver.launch_backfill(assets, [str(day) for day in DAYS], title="", tags={})
