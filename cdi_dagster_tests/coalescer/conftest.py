"""A storage of each kind, empty."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.s3_server import new_s3_storage

_MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder where a sync costs nothing, if this machine has one: these tests write very many small objects."""
    if not os.access(_MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY, prefix="cdi-coalescer-") as name:
        yield Path(name)


@pytest.fixture
def file_storage(folder: Path) -> Storage:
    return open_storage((folder / "corporate").as_uri())


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest, folder: Path) -> Storage:
    return new_s3_storage() if request.param == "s3" else open_storage((folder / "corporate").as_uri())
