"""`cdi clusters`: what is ours, whose it is, and which of it may be ended."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import dagster as dg
import pytest
from click.testing import CliRunner, Result

from cdi_dagster.cli.app import cdi
from cdi_dagster.cli.clusters import clusters_command
from cdi_dagster.core.launch_decision import MAX_ATTEMPTS, RETRY_WAIT
from cdi_dagster.emr.clusters.api import OurCluster
from cdi_dagster.emr.clusters.orphans import FoundRun, RunLiveness, list_clusters
from cdi_dagster_tests.emr.emulator import REGION
from cdi_dagster_tests.emr.launches import Bench


@dg.job
def any_job() -> None:
    """A job to have runs of."""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return dg.DagsterInstance.get()


def run_with(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **more: Any) -> str:
    return str(instance.create_run_for_job(any_job, status=status, **more).run_id)


def cluster_of(bench: Bench, run_id: str, *, product: str = "cdi_dagster") -> str:
    types = [{"InstanceFleetType": "MASTER", "InstanceTypeConfigs": [{"InstanceType": "m5.xlarge"}]}]
    answer = bench.emr.client("emr").run_job_flow(
        Name="cdi-data.businessAudit-2023-03-26-ingest_daily-00000000-a1",
        Instances={"KeepJobFlowAliveWhenNoSteps": True, "InstanceFleets": types},
        Tags=[
            {"Key": "cdi:product", "Value": product},
            {"Key": "cdi:run_id", "Value": run_id},
            {"Key": "cdi:collection", "Value": "data:businessAudit"},
        ],
    )
    return str(answer["JobFlowId"])


def has_idled(bench: Bench, cluster_id: str, *, seconds: float) -> str:
    """Have a cluster that waits for a step do so for longer."""
    cluster = bench.emr.clusters[cluster_id]
    bench.emr.wait(lambda: cluster.state == "WAITING")
    assert cluster.ready_at is not None
    cluster.ready_at -= seconds
    return cluster_id


def clusters(*arguments: str) -> Result:
    return CliRunner().invoke(cdi, ["clusters", *arguments])


def standings(result: Result) -> dict[str, str]:
    return {cluster["cluster_id"]: cluster["standing"] for cluster in json.loads(result.stdout)["clusters"]}


def test_only_clusters_whose_run_and_retries_have_ended_are_orphans(bench: Bench, instance: dg.DagsterInstance) -> None:
    S = dg.DagsterRunStatus
    live, ended, retried = (run_with(instance, status) for status in (S.STARTED, S.FAILURE, S.FAILURE))
    run_with(
        instance, S.STARTING, tags={"dagster/root_run_id": retried, "dagster/parent_run_id": retried}
    )  # as every re-execution is tagged
    followed, orphan = cluster_of(bench, live), cluster_of(bench, ended)
    taken_up, foreign = cluster_of(bench, retried), cluster_of(bench, "4711")
    cluster_of(bench, ended, product="another")
    has_idled(bench, orphan, seconds=301)

    young = clusters("--json")
    assert standings(young)[orphan] == "may be retried"
    listed = clusters("--json", "--min-age-minutes", "0", "--terminate-orphans", "--yes")
    assert standings(listed) == {followed: "followed", orphan: "orphan", taken_up: "followed", foreign: "unknown"}
    assert json.loads(listed.stdout)["terminated"] == [orphan]
    bench.emr.wait(lambda: bench.emr.clusters[orphan].has_ended)
    assert len(bench.emr.live()) == 4
    end_all(bench)


def test_an_old_cluster_whose_run_has_just_ended_waits_for_the_runs_retry(
    bench: Bench, instance: dg.DagsterInstance
) -> None:
    S = dg.DagsterRunStatus
    root, family = run_with(instance, S.FAILURE), cluster_of(bench, run_with(instance, S.FAILURE))
    retry = run_with(instance, S.STARTED, tags={"dagster/root_run_id": root, "dagster/parent_run_id": root})
    followed = cluster_of(bench, root)
    for cluster_id in (family, followed):
        has_idled(bench, cluster_id, seconds=3_000)
        bench.emr.clusters[cluster_id].created_at -= 7_200
    assert standings(clusters("--json")) == {family: "may be retried", followed: "followed"}
    died = instance.get_run_by_id(retry)
    assert died is not None
    instance.report_run_failed(died)
    listed = clusters("--json", "--terminate-orphans", "--yes")
    assert standings(listed) == {family: "may be retried", followed: "may be retried"}
    assert json.loads(listed.stdout)["terminated"] == []
    end_all(bench)


@pytest.mark.parametrize(
    ("created", "ended", "standing"),
    [
        (120, 44, "may be retried"),
        (44, 120, "may be retried"),
        (120, 46, "orphan"),
    ],
)
def test_an_orphan_is_what_nobody_took_up_in_its_time(created: int, ended: int, standing: str) -> None:
    now = datetime(2026, 11, 27, 12, tzinfo=UTC)
    cluster = OurCluster(
        cluster_id="j-1",
        name="cdi-n",
        state="RUNNING",
        created_at=now - timedelta(minutes=created),
        tags={"cdi:product": "cdi_dagster", "cdi:run_id": "r1"},
    )
    run = FoundRun(liveness=RunLiveness.ENDED, ended_at=now - timedelta(minutes=ended))
    [listed] = list_clusters([cluster], lambda _: run, now=now, min_age_seconds=45 * 60, idle_seconds=300)
    assert listed.standing == standing


def test_by_default_a_cluster_outlives_the_longest_wait_before_a_retry() -> None:
    [option] = [each for each in clusters_command.params if each.name == "min_age_minutes"]
    assert timedelta(minutes=option.default) > 2 * RETRY_WAIT * 2 ** (MAX_ATTEMPTS - 2)


def test_what_a_run_took_up_while_the_question_was_open_is_not_ended(
    bench: Bench, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    S = dg.DagsterRunStatus
    ended = run_with(instance, S.FAILURE)
    taken, left = cluster_of(bench, ended), cluster_of(bench, run_with(instance, S.FAILURE))
    for cluster_id in (taken, left):
        has_idled(bench, cluster_id, seconds=301)

    def retried_meanwhile(*_: object, **__: object) -> bool:
        run_with(instance, S.STARTED, tags={"dagster/root_run_id": ended, "dagster/parent_run_id": ended})
        return True

    monkeypatch.setattr(click, "confirm", retried_meanwhile)
    listed = clusters("--terminate-orphans", "--min-age-minutes", "0")
    assert f"Terminating {left}." in listed.output
    assert f"{taken} is no orphan any more" in listed.output
    bench.emr.wait(lambda: bench.emr.clusters[left].has_ended)
    assert not bench.emr.clusters[taken].is_ending
    end_all(bench)


def test_a_cluster_that_waits_for_the_next_step_is_no_orphan_until_it_idled_for_its_time(
    bench: Bench, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = has_idled(bench, cluster_of(bench, run_with(instance, dg.DagsterRunStatus.SUCCESS)), seconds=61)
    listed = clusters("--json", "--min-age-minutes", "0", "--terminate-orphans", "--yes")
    assert standings(listed) == {idle: "idle"}
    assert json.loads(listed.stdout)["terminated"] == []
    monkeypatch.setenv("CDI_EMR_IDLE_SECONDS", "60")
    assert standings(clusters("--json", "--min-age-minutes", "0")) == {idle: "orphan"}
    end_all(bench)


def test_nothing_is_ended_without_a_yes(bench: Bench, instance: dg.DagsterInstance) -> None:
    orphan = has_idled(bench, cluster_of(bench, run_with(instance, dg.DagsterRunStatus.CANCELED)), seconds=301)
    asked = CliRunner().invoke(cdi, ["clusters", "--terminate-orphans", "--min-age-minutes", "0"], input="n\n")
    assert f"Terminate 1 cluster(s): {orphan}?" in asked.output
    assert len(bench.emr.live()) == 1
    end_all(bench)


def test_without_dagster_no_cluster_is_known_to_be_an_orphan(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    cluster_id = cluster_of(bench, "4711")
    assert standings(clusters("--json")) == {cluster_id: "unknown"}
    refused = clusters("--terminate-orphans", "--yes")
    assert refused.exit_code == 2
    assert "DAGSTER_HOME is not set" in refused.output
    end_all(bench)


def test_a_home_where_no_dagster_has_started_is_refused_and_left_as_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    refused = clusters("--terminate-orphans", "--yes")
    assert refused.exit_code == 2
    assert "no Dagster has started yet" in refused.output
    assert list(home.iterdir()) == []


def test_no_cluster_is_reported_plainly(bench: Bench) -> None:
    assert "No cluster of ours is running." in clusters().output


def end_all(bench: Bench) -> None:
    bench.emr.client("emr").terminate_job_flows(JobFlowIds=[cluster.cluster_id for cluster in bench.emr.live()])
    bench.emr.wait(lambda: bench.emr.live() == [])


def test_it_lists_the_region_of_the_settings(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("CDI_HOME", str(tmp_path))
    monkeypatch.setenv("CDI_AWS_REGION", REGION)
    result = CliRunner().invoke(cdi, ["clusters", "--json"])
    assert (result.exit_code, json.loads(result.stdout)["clusters"]) == (0, [])
