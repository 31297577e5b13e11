"""Fixtures for tests of the Spark jobs: a key service, and a storage day on either kind of root."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.s3_server import REGION, new_s3_storage, s3_endpoint
from cdi_dagster_tests.spark.ingest_support import SampleDay


@pytest.fixture
def dks_url() -> Iterator[str]:
    """A key service that answers; one for each test, as the workers keep the keys of one that they know."""
    with DevelopmentKeyService() as service:
        yield service.url


@pytest.fixture
def file_day(tmp_path: Path, dks_url: str) -> SampleDay:
    """A day in local folders."""
    return SampleDay(
        corporate=open_storage((tmp_path / "corporate").as_uri()),
        published=open_storage((tmp_path / "published").as_uri()),
        dks_url=dks_url,
    )


@pytest.fixture
def s3_day(dks_url: str, monkeypatch: pytest.MonkeyPatch) -> SampleDay:
    """A day in two buckets; the job finds the server by boto3's own configuration, as it does in production."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    return SampleDay(corporate=new_s3_storage(), published=new_s3_storage(), dks_url=dks_url)


@pytest.fixture(params=["file", "s3"])
def day(request: pytest.FixtureRequest) -> SampleDay:
    """A day on either kind of root, one after the other."""
    found: SampleDay = request.getfixturevalue(f"{request.param}_day")
    return found
