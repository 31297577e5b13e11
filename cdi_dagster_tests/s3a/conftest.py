"""Fixtures for tests of Spark on S3: the jars it needs, a key service, a storage day in two buckets."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdi_dagster.core.failures import CdiError
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.local_spark.s3a_conf import find_s3a_jars
from cdi_dagster_tests.aws_actions import only_allowed_actions  # noqa: F401 - a fixture of this package
from cdi_dagster_tests.s3_server import REGION, new_s3_storage, s3_endpoint
from cdi_dagster_tests.spark.ingest_support import SampleDay


def pyspark_folder() -> Path:
    """Return the folder of the installed pyspark."""
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="session")
def s3a_jars() -> tuple[Path, ...]:
    """The jars without which Spark cannot write to S3; a test that needs them is skipped where they are not."""
    try:
        return find_s3a_jars(pyspark_folder())
    except CdiError as error:
        pytest.skip(f"{error.cause} {error.next_step}")


@pytest.fixture(scope="session")
def dks_url() -> Iterator[str]:
    """A key service that answers."""
    with DevelopmentKeyService() as service:
        yield service.url


@pytest.fixture
def s3_day(dks_url: str, monkeypatch: pytest.MonkeyPatch) -> SampleDay:
    """A day in two buckets; the job finds the server by boto3's own configuration, as it does in production."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    return SampleDay(corporate=new_s3_storage(), published=new_s3_storage(), dks_url=dks_url)
