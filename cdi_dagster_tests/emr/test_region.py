"""On a node boto3 knows no region of itself: driver and workers get the installation's, and some patience."""

from pathlib import Path

import pytest

from cdi_dagster_tests.emr import region_step
from cdi_dagster_tests.emr.emulator import REGION
from cdi_dagster_tests.emr.launches import Bench

pytestmark = pytest.mark.spark


def test_driver_and_python_workers_get_the_region(bench: Bench) -> None:
    bench.run_spark(Path(region_step.__file__), master="local[1]")
    launched = bench.launch(())
    assert f"driver {REGION} ['{REGION}', 5, 5]" in launched.text
    assert f"worker {REGION} ['{REGION}', 5, 5]" in launched.text
