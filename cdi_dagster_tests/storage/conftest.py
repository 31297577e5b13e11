import itertools
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.aws_actions import only_allowed_actions  # noqa: F401 - a fixture of this package
from cdi_dagster_tests.s3_server import REGION, s3_endpoint

_BUCKET_NUMBERS = itertools.count()


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint(),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def make_bucket(aws_environment: None) -> Callable[..., str]:
    def make(*, versioned: bool = False) -> str:
        name = f"bucket-{next(_BUCKET_NUMBERS)}"
        client = boto3.client("s3")
        client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        if versioned:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    return make


@pytest.fixture(params=["file", "s3", "s3-versioned"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty root of each kind: what holds for one storage holds for all."""
    if request.param == "file":
        return f"file://{tmp_path}/root"
    make = request.getfixturevalue("make_bucket")
    return f"s3://{make()}" if request.param == "s3" else f"s3://{make(versioned=True)}/below/it"


@pytest.fixture
def storage(root: str) -> Storage:
    return open_storage(root)
