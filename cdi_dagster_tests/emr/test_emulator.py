"""The emulator keeps EMR's manners, so that what the launcher learns from it is worth something."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from cdi_dagster_tests.emr.cluster import Cluster, ClusterFaults
from cdi_dagster_tests.emr.emulator import EmrEmulator


@pytest.fixture
def emr(tmp_path: Path) -> Iterator[EmrEmulator]:
    with EmrEmulator(tmp_path) as emulator:
        emulator.client("s3").create_bucket(
            Bucket=f"logs-{tmp_path.name.replace('_', '-').lower()}",
            CreateBucketConfiguration={"LocationConstraint": "eu-west-2"},
        )
        emulator.log_bucket = f"logs-{tmp_path.name.replace('_', '-').lower()}"  # type: ignore[attr-defined]
        yield emulator


def launch(emr: EmrEmulator, *command: str, keep_alive: bool = False, **more: Any) -> str:
    steps = [{"Name": "step", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": list(command)}}]
    answer = emr.client("emr").run_job_flow(
        Name="cluster",
        LogUri=f"s3://{emr.log_bucket}/logs",  # type: ignore[attr-defined]
        Instances={
            "KeepJobFlowAliveWhenNoSteps": keep_alive,
            "InstanceFleets": [{"InstanceFleetType": "MASTER", "InstanceTypeConfigs": [{"InstanceType": "m5.xlarge"}]}],
        },
        Steps=steps if command else [],
        **more,
    )
    return str(answer["JobFlowId"])


def end(emr: EmrEmulator, cluster_id: str) -> tuple[str, str, list[str]]:
    """Wait for the end; return the cluster's state, reason code and the states of its steps, as boto3 sees them."""
    emr.wait(lambda: emr.clusters[cluster_id].has_ended)
    client = emr.client("emr")
    status = client.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]
    steps = [step["Status"]["State"] for step in client.list_steps(ClusterId=cluster_id)["Steps"]]
    return status["State"], status["StateChangeReason"].get("Code", ""), steps


def test_a_step_runs_for_real_and_its_log_lies_under_the_log_uri(emr: EmrEmulator) -> None:
    cluster_id = launch(emr, "bash", "-c", "echo hello >&2")
    assert end(emr, cluster_id) == ("TERMINATED", "ALL_STEPS_COMPLETED", ["COMPLETED"])
    assert emr.clusters[cluster_id].states == ["STARTING", "BOOTSTRAPPING", "RUNNING", "TERMINATING", "TERMINATED"]
    [step] = emr.clusters[cluster_id].steps
    key = f"logs/{cluster_id}/steps/{step.step_id}/stderr.gz"
    body = emr.client("s3").get_object(Bucket=emr.log_bucket, Key=key)["Body"].read()  # type: ignore[attr-defined]
    assert gzip.decompress(body) == b"hello\n"


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (ClusterFaults(capacity="fail"), ("TERMINATED_WITH_ERRORS", "INTERNAL_ERROR", ["CANCELLED"])),
        (ClusterFaults(validation="bad subnet"), ("TERMINATED_WITH_ERRORS", "VALIDATION_ERROR", ["CANCELLED"])),
        (ClusterFaults(internal=True), ("TERMINATED_WITH_ERRORS", "INTERNAL_ERROR", ["CANCELLED"])),
        (ClusterFaults(bootstrap=True), ("TERMINATED_WITH_ERRORS", "BOOTSTRAP_FAILURE", ["CANCELLED"])),
        (ClusterFaults(step_exit=1), ("TERMINATED_WITH_ERRORS", "STEP_FAILURE", ["FAILED"])),
        (ClusterFaults(kill_step_after=0.3), ("TERMINATED_WITH_ERRORS", "STEP_FAILURE", ["FAILED"])),
        (ClusterFaults(lose_instance_after=0.3), ("TERMINATED_WITH_ERRORS", "INSTANCE_FAILURE", ["FAILED"])),
        (ClusterFaults(console_kill_after=0.3), ("TERMINATED", "USER_REQUEST", ["CANCELLED"])),
    ],
)
def test_every_fault_shows_as_emr_shows_it(
    emr: EmrEmulator, faults: ClusterFaults, expected: tuple[str, str, list[str]]
) -> None:
    emr.faults.clusters.append(faults)
    assert end(emr, launch(emr, "sleep", "20")) == expected


def test_a_type_without_capacity_hangs_until_it_is_terminated(emr: EmrEmulator) -> None:
    emr.faults.no_capacity["m5.xlarge"] = "hang"
    cluster_id = launch(emr, "true")
    emr.client("emr").terminate_job_flows(JobFlowIds=[cluster_id])
    assert end(emr, cluster_id) == ("TERMINATED", "USER_REQUEST", ["CANCELLED"])
    assert "RUNNING" not in emr.clusters[cluster_id].states


def test_steps_are_added_to_a_waiting_cluster_and_cancelled(emr: EmrEmulator) -> None:
    cluster_id = launch(emr, keep_alive=True)
    emr.wait(lambda: emr.clusters[cluster_id].state == "WAITING")
    client = emr.client("emr")
    steps: list[Any] = [{"Name": "s", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["sleep", "20"]}}]
    for step in steps:
        step["ActionOnFailure"] = "CONTINUE"
    [step_id] = client.add_job_flow_steps(JobFlowId=cluster_id, Steps=steps)["StepIds"]
    emr.wait(lambda: emr.clusters[cluster_id].steps[0].state == "RUNNING")
    client.cancel_steps(ClusterId=cluster_id, StepIds=[step_id])
    emr.wait(lambda: emr.clusters[cluster_id].steps[0].state == "CANCELLED")
    emr.wait(lambda: emr.clusters[cluster_id].state == "WAITING")


def test_a_step_that_is_cancelled_before_its_process_is_there_starts_none(
    emr: EmrEmulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    execute = Cluster._execute

    def cancelled_just_before(cluster: Cluster, *arguments: Any) -> int:
        cluster.cancel(cluster.steps[0].step_id)
        return execute(cluster, *arguments)

    monkeypatch.setattr(Cluster, "_execute", cancelled_just_before)
    begun = tmp_path / "begun"
    assert end(emr, launch(emr, "touch", str(begun)))[2] == ["CANCELLED"]
    assert not begun.exists()


def test_a_lost_answer_still_started_a_cluster(emr: EmrEmulator) -> None:
    emr.faults.lose_answer.append("RunJobFlow")
    cluster_id = launch(emr, "true")  # boto3's own retry hides the loss ...
    assert len(emr.clusters) == 2  # ... and pays for two
    assert cluster_id in emr.clusters


def test_refusals_and_throttling_come_as_boto3_knows_them(emr: EmrEmulator) -> None:
    emr.faults.reject["RunJobFlow"] = ("ValidationException", "no such role")
    with pytest.raises(ClientError, match="no such role"):
        launch(emr, "true")
    emr.faults.throttle["ListClusters"] = 2
    assert emr.client("emr").list_clusters()["Clusters"] == []
    assert emr.calls["ListClusters"] == 3


def test_lists_come_in_pages(emr: EmrEmulator) -> None:
    emr.page_size = 2
    ids = {launch(emr, "true") for _ in range(5)}
    pages = list(emr.client("emr").get_paginator("list_clusters").paginate())
    assert [len(page["Clusters"]) for page in pages] == [2, 2, 1]
    assert {cluster["Id"] for page in pages for cluster in page["Clusters"]} == ids


def test_an_argument_over_the_limit_is_refused(emr: EmrEmulator) -> None:
    with pytest.raises(ClientError, match="10280"):
        launch(emr, "echo", "x" * 10_281)


def test_a_lost_answer_is_an_error_where_nothing_is_retried(emr: EmrEmulator) -> None:
    import boto3
    from botocore.config import Config

    emr.faults.lose_answer.append("ListClusters")
    client = boto3.client(
        "emr",
        endpoint_url=emr.endpoint,
        region_name="eu-west-2",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(ConnectionClosedError):
        client.list_clusters()
