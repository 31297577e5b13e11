"""EMR and Batch of another account are used as the role there, which is assumed again before its credentials end."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
import time_machine

from cdi_dagster.aws import clients
from cdi_dagster.clock import utc_now
from cdi_dagster.emr.clusters.api import EmrApi
from cdi_dagster.settings import SettingsError, load_settings
from cdi_dagster_tests.child_processes.sitecustomize import hear_calls
from cdi_dagster_tests.s3_server import REGION, s3_endpoint

EMR_ROLE = "arn:aws:iam::222222222222:role/cdi-emr"
BATCH_ROLE = "arn:aws:iam::333333333333:role/cdi-batch"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    heard: list[str] = []
    stop = hear_calls(heard.append)
    yield heard
    stop()


def test_each_service_is_used_in_its_account(tmp_path: Path, calls: list[str]) -> None:
    load_settings(home=tmp_path, emr_role_arn=EMR_ROLE, batch_role_arn=BATCH_ROLE)
    EmrApi().run_job_flow({"Name": "there", "Instances": {"InstanceCount": 1, "MasterInstanceType": "m5.xlarge"}})
    assert [row["Name"] for row in clients.client("emr").list_clusters()["Clusters"]] == ["there"]
    assert "222222222222" in clients.client("emr").list_clusters()["Clusters"][0]["ClusterArn"]
    assert "there" not in [row["Name"] for row in boto3.client("emr").list_clusters()["Clusters"]]
    # What `cdi doctor` looks up is of the account of the clusters.
    profile = clients.client("iam").create_instance_profile(InstanceProfileName="cdi")["InstanceProfile"]
    assert "222222222222" in profile["Arn"]
    container = {"image": "coalescer", "vcpus": 1, "memory": 128}
    job = clients.client("batch").register_job_definition(
        jobDefinitionName="coalescer", type="container", containerProperties=container
    )
    assert "333333333333" in job["jobDefinitionArn"]
    # Everything else stays ours.
    assert "123456789012" in clients.client("sns").create_topic(Name="t")["TopicArn"]
    assert calls.count("sts:AssumeRole") == 2  # whatever the number of clients


def test_a_role_is_assumed_again_before_its_hour_is_over(tmp_path: Path, calls: list[str]) -> None:
    load_settings(home=tmp_path, emr_role_arn=EMR_ROLE)
    api = clients.client("emr")
    api.list_clusters()
    api.list_clusters()
    assert calls.count("sts:AssumeRole") == 1
    with time_machine.travel(utc_now() + timedelta(minutes=55)):
        api.list_clusters()
    assert calls.count("sts:AssumeRole") == 2


def test_without_roles_none_is_assumed(tmp_path: Path, calls: list[str]) -> None:
    load_settings(home=tmp_path, emr_role_arn=EMR_ROLE)
    load_settings(home=tmp_path)
    clients.client("emr").list_clusters()
    assert "sts:AssumeRole" not in calls


def test_what_is_no_role_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="CDI_EMR_ROLE_ARN='cdi-emr' is not the ARN of a role"):
        load_settings(home=tmp_path, emr_role_arn="cdi-emr")
