"""One storage day on a real Dagster instance, for most tests here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdi_dagster_tests.dagster_day import DagsterDay
from cdi_dagster_tests.instance import instance_on_disk


@pytest.fixture
def day(tmp_path: Path) -> Iterator[DagsterDay]:
    with instance_on_disk() as instance:
        yield DagsterDay(tmp_path, instance)
