"""An emulated EMR account for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdi_dagster_tests.aws_actions import only_allowed_actions  # noqa: F401 - a fixture of this package
from cdi_dagster_tests.emr.emulator import REGION, EmrEmulator
from cdi_dagster_tests.emr.launches import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with EmrEmulator(tmp_path / "emr", spark_master=None, idle_scale=0.02) as emr:
        environment = {
            "AWS_ENDPOINT_URL": emr.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        made = Bench(emr=emr, folder=tmp_path, bucket=f"cdi-{tmp_path.parent.name}-{abs(hash(str(tmp_path)))}"[:60])
        made.prepare()
        yield made
        # Whatever a scenario is about, nothing that it started is left running and paid for.
        assert [cluster.cluster_id for cluster in emr.live() if not cluster.is_ending] == []
