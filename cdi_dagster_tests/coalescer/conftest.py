"""A storage of each kind, empty."""

from pathlib import Path

import pytest

from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.s3_server import new_s3_storage


@pytest.fixture
def file_storage(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "corporate").as_uri())


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return new_s3_storage() if request.param == "s3" else open_storage((tmp_path / "corporate").as_uri())
