"""`cdi doctor --on-cluster`: a small step on an emulated cluster finds what the first morning would have met."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

import cdi_dagster
from cdi_dagster.cli.app import cdi
from cdi_dagster.cli.doctor_cluster import CheckLauncher
from cdi_dagster.core.storage_keys import clusters_prefix, doctor_key
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.names import PARTITION_TAG
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.emr.cluster import ClusterFaults
from cdi_dagster_tests.emr.emulator import REGION
from cdi_dagster_tests.emr.launches import DAY, Bench, QuickLauncher

ENTRY_POINT = Path(cdi_dagster.__file__).parent / "spark" / "entry_points" / "check_cluster.py"
METASTORE = {"spark.hadoop.javax.jdo.option.ConnectionURL": "jdbc:derby:memory:metastore;create=true"}


@pytest.fixture
def installation(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    for name, value in bench.settings(dks_url="https://127.0.0.1:9", first_storage_day=DAY).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(CheckLauncher, "sleep", QuickLauncher.sleep)
    return bench


def doctor(*options: str) -> Result:
    return CliRunner().invoke(cdi, ["doctor", "--on-cluster", *options], catch_exceptions=False)


def findings(result: Result) -> dict[str, tuple[str, str]]:
    checks: dict[str, Any] = json.loads(result.stdout)["checks"]
    return {name: (check["result"], check["text"]) for name, check in checks.items()}


@pytest.mark.spark
def test_a_cluster_is_checked_from_the_inside_and_ended(installation: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = installation
    bench.run_spark(ENTRY_POINT, master="local[1]", name="check_cluster", conf=METASTORE)
    bench.emr.client("s3").put_bucket_versioning(Bucket=bench.bucket, VersioningConfiguration={"Status": "Enabled"})
    write_sample(open_storage(f"s3://{bench.bucket}/corporate"), AUDIT.on(DAY), records=10, objects=2, seed=1)
    monkeypatch.setenv("CDI_S3_ENCRYPTION", "AES256")
    with DevelopmentKeyService() as service:
        monkeypatch.setenv("CDI_DKS_URL", service.url)
        result = doctor("--json")

    found = findings(result)
    assert {name: result for name, (result, _) in found.items()} == {
        **dict.fromkeys(("region", "corporate-read", "published-write", "encryption", "key-service"), "ok"),
        "python": "note",  # the emulated node has the environment of the tests, and no bundle
        "metastore": "ok",
    }, result.stdout
    assert result.exit_code == 0
    assert f"{REGION}, as the bucket of" in found["region"][1]
    assert "can be read, by version " in found["corporate-read"][1]
    assert "encrypted with AES256, as CDI_S3_ENCRYPTION requests" in found["encryption"][1]
    assert "lists 1 databases (default)" in found["metastore"][1]

    [cluster] = bench.emr.clusters.values()
    answer = json.loads(result.stdout)
    assert (answer["cluster_id"], answer["attempts"]) == (cluster.cluster_id, 1)
    assert answer["estimated_cost_usd"] is not None
    assert f"/{cluster.cluster_id}/steps/" in answer["log"]
    bench.emr.wait(lambda: cluster.state == "TERMINATED")
    published = open_storage(bench.published_root)
    assert list(published.list(doctor_key(""))) == list(published.list(clusters_prefix())) == []
    assert bench.emr.client("s3").list_multipart_uploads(Bucket=bench.bucket).get("Uploads", []) == []


@pytest.mark.spark
def test_what_is_wrong_on_the_node_is_named_with_the_next_step(
    installation: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another region, a key service that nobody reaches from there, a certificate in a secret that is not there."""
    installation.run_spark(ENTRY_POINT, master="local[1]", name="check_cluster", conf=METASTORE)
    monkeypatch.setenv("CDI_AWS_REGION", "eu-west-1")
    for name in ("CERTIFICATE", "PRIVATE_KEY"):
        monkeypatch.setenv(f"CDI_DKS_{name}", "secretsmanager://cdi/nobody")
    result = doctor()
    assert result.exit_code == 1
    lines = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert [line.split()[1] for line in lines] == ["Region", "Key"]
    assert f"is in {REGION}" in lines[0]
    assert "the secret cdi/nobody cannot be read (ResourceNotFoundException)" in lines[1]
    assert "secretsmanager:GetSecretValue" in result.stdout
    [cluster] = installation.emr.clusters.values()
    assert f"Checked on cluster {cluster.cluster_id} (small), " in result.stdout
    assert "USD" in result.stdout


def test_a_cluster_that_does_not_come_up_is_the_launchers_failure_with_its_class(installation: Bench) -> None:
    installation.emr.faults.clusters = [ClusterFaults(bootstrap=True), ClusterFaults(bootstrap=True)]
    result = doctor("--json")
    failure = json.loads(result.stdout)["failure"]
    assert (result.exit_code, failure["failure_class"]) == (1, "BOOTSTRAP_FAILED")
    assert failure["next_step"]
    assert "BOOTSTRAP_FAILED" in result.stderr
    installation.emr.wait(lambda: installation.emr.live() == [])


def test_a_template_that_cannot_be_used_starts_nothing(installation: Bench) -> None:
    (installation.folder / "cluster.yaml").write_text("cluster: {}\n")
    result = doctor()
    assert result.exit_code == 1
    assert "LAUNCH_FAILED: The cluster template" in result.stderr
    assert "Next: Fix that" in result.stderr
    assert installation.emr.calls["RunJobFlow"] == 0


def test_who_stops_it_ends_its_cluster(installation: Bench) -> None:
    installation.run_spark(ENTRY_POINT, master="local[1]", name="check_cluster")
    installation.hold_clusters()

    def press_control_c() -> None:
        installation.emr.wait(lambda: any(one.state == "BOOTSTRAPPING" for one in installation.emr.live()))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press_control_c)
    thread.start()
    result = doctor()
    thread.join()
    assert result.exit_code == 130
    [cluster] = installation.emr.clusters.values()
    assert cluster.is_ending
    installation.emr.wait(lambda: cluster.has_ended)


QUICK_STEP = """\
import sys
from cdi_dagster.spark.reporting import open_reporter
with open_reporter(sys.argv[1:]) as (reporter, _):
    reporter.report("check_cluster", {"checks": []})
"""


def test_a_cluster_is_left_to_runs_that_need_it_and_taken_where_one_idles(
    installation: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDI_EMR_IDLE_SECONDS", "86400")
    quick_step = installation.folder / "quick_step.py"
    quick_step.write_text(QUICK_STEP)
    installation.run_spark(quick_step, master="none", name="check_cluster")
    installation.emr.spark_master = None  # this program needs no Spark
    with dg.instance_for_test() as instance:  # in DAGSTER_HOME
        other = dg.DagsterRun(job_name="another", status=dg.DagsterRunStatus.STARTED, tags={PARTITION_TAG: str(DAY)})
        instance.add_run(other)
        assert doctor().exit_code == 0
        [cluster] = installation.emr.clusters.values()
        assert cluster.state == "WAITING"
        instance.delete_run(other.run_id)
        assert doctor().exit_code == 0
    assert installation.emr.calls["RunJobFlow"] == 1
    assert [step.state for step in cluster.steps] == ["COMPLETED"] * 2
    installation.emr.wait(lambda: cluster.state == "TERMINATED")


def test_only_chooses_checks_of_this_machine() -> None:
    result = doctor("--only", "java")
    assert result.exit_code == 2
    assert "leave it out with --on-cluster" in result.stderr
