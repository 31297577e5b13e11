"""A storage day for the check tests."""

import pytest

from cdi_dagster_tests.dagster_day import dagster_day


@pytest.fixture
def day(tmp_path):
    with dagster_day(tmp_path) as found:
        yield found
