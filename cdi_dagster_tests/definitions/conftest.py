"""One real Dagster for all tests of this package that need one."""

import pytest

from cdi_dagster_tests.definitions.real_dagster import real_dagster


@pytest.fixture(scope="package")
def dagster(tmp_path_factory):
    with real_dagster(tmp_path_factory.mktemp("home")) as running:
        yield running
