"""`cdi doctor --on-cluster` on a laptop: the same step, on this machine's Spark."""

from pathlib import Path

import pytest

from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster_tests.cli.conftest import Cdi

pytestmark = pytest.mark.spark


def test_a_laptop_tries_the_step_on_its_own_spark(cdi: Cdi, home: Path) -> None:
    sample = ("--collection", "data:businessAudit", "--storage-day", "2023-03-26", "--records", "10", "--objects", "2")
    assert cdi("sample", *sample).exit_code == 0
    with DevelopmentKeyService() as service:
        answer = cdi("doctor", "--on-cluster", CDI_DKS_URL=service.url, CDI_SPARK_MASTER="local[1]")
    assert answer.exit_code == 0, answer.stdout + answer.stderr
    *checks, last = answer.stdout.splitlines()
    assert "Checked on this machine's Spark, this machine (local[1])" in last
    text = "\n".join(checks)
    assert "by its key: no versions are kept there" in text
    assert f"{service.url} responds" in text
    assert "lists 1 databases (default)" in text
    assert "WARN" not in answer.stderr
    assert (home / "runs").is_dir()

    answer = cdi("doctor", "--on-cluster", "--json", CDI_DKS_URL=service.url, CDI_SPARK_MASTER="local[1]")
    assert (answer.exit_code, answer.json["ok"], answer.json["cluster_id"]) == (1, False, "local")
    assert answer.json["checks"]["key-service"]["result"] == "failed"
    assert answer.json["estimated_cost_usd"] is None
