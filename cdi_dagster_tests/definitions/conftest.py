"""One real Dagster for all tests of this package that need one."""

from collections.abc import Iterator

import pytest

from cdi_dagster_tests.definitions.real_dagster import RealDagster, real_dagster


@pytest.fixture(scope="package")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDagster]:
    with real_dagster(tmp_path_factory.mktemp("home")) as running:
        yield running
