"""The recorder of requests sees those of our own clients, in whatever process, and knows what no policy allows."""

import subprocess
import sys
import uuid
from pathlib import Path

import boto3
import pytest

from cdi_dagster.aws.clients import client
from cdi_dagster_tests.aws_actions import not_allowed, recorded
from cdi_dagster_tests.s3_server import REGION, s3_endpoint

CHILD = "from cdi_dagster.aws.clients import client; client('s3').list_buckets(); client('s3').list_buckets()"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    return tmp_path / "calls"


def test_requests_of_our_own_clients_are_recorded_here_and_in_children(
    calls: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    with recorded(calls):
        of_the_test, bucket = boto3.client("s3"), f"bucket-{uuid.uuid4().hex}"
        of_the_test.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        of_the_test.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        version = client("s3").put_object(Bucket=bucket, Key="a", Body=b"1")["VersionId"]
        client("s3").head_object(Bucket=bucket, Key="a", VersionId=version)
        subprocess.run([sys.executable, "-c", CHILD], check=True)
        monkeypatch.setenv("CDI_PREFIX", "/opt/cdi")  # as emulated nodes have it
        subprocess.run([sys.executable, "-c", CHILD], check=True)
    client("s3").list_buckets()
    assert calls.read_text().splitlines() == [
        f"{call} {request.node.nodeid}"
        for call in (
            "anywhere s3:PutObject",
            "anywhere s3:HeadObjectVersion",
            "anywhere s3:ListBuckets",
            "node s3:ListBuckets",
        )
    ]


def test_what_no_policy_allows_is_named_with_the_first_test_and_a_node_has_its_own_policy() -> None:
    lines = [
        "anywhere s3:UploadPart test_a",
        "anywhere s3:HeadObjectVersion test_a",
        "anywhere elasticmapreduce:RunJobFlow test_a",
        "anywhere sts:GetCallerIdentity test_a",
        "anywhere s3:GetObjectTagging test_b",
        "anywhere s3:GetObjectTagging test_c",
        "node s3:UploadPart test_d",
        "node elasticmapreduce:RunJobFlow test_d",
    ]
    assert not_allowed(lines) == [
        "elasticmapreduce:RunJobFlow (an emulated node), first in test_d",
        "s3:GetObjectTagging, first in test_b",
    ]
