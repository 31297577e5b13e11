"""A storage day for the check tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdi_dagster_tests.dagster_day import DagsterDay, dagster_day


@pytest.fixture
def day(tmp_path: Path) -> Iterator[DagsterDay]:
    with dagster_day(tmp_path) as found:
        yield found
