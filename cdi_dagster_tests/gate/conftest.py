"""One storage day on a real Dagster instance, for most tests here."""

import dagster as dg
import pytest

from cdi_dagster_tests.dagster_day import DagsterDay


@pytest.fixture
def day(tmp_path):
    with dg.instance_for_test() as instance:
        yield DagsterDay(tmp_path, instance)
