"""The job runs every check in the driver and in a worker, and reports a finding for each, also without Spark."""

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.findings import CheckResult, failed, note, ok
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.spark.cluster_checks import job

NAMES = ["region", "corporate-read", "published-write", "encryption", "key-service", "python", "metastore"]


class Pipes:
    """What a launcher receives."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def report_custom_message(self, message: dict[str, Any]) -> None:
        self.messages.append(json.loads(json.dumps(message)))


def checked(folder: Path, dks_url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, dict[str, Any]], Pipes]:
    pipes = Pipes()

    @contextmanager
    def reporter(argv: list[str]) -> Any:
        yield job.Reporter(pipes), argv  # type: ignore[arg-type]

    monkeypatch.setattr(job, "open_reporter", reporter)
    root = (folder / "root").as_uri()
    (folder / "root" / "corporate_storage").mkdir(parents=True)
    (folder / "root" / "corporate_storage" / "x").write_text("x")
    roots = ("--corporate-root", root, "--published-root", root)
    sample = ("--sample-key", "corporate_storage/x")
    assert job.main([*roots, *sample, "--correlation-id", "c", "--dks-url", dks_url]) == 0
    report = pipes.messages[-1]["report"]
    return {check["name"]: check for check in report["checks"]}, pipes


@pytest.mark.spark
@pytest.mark.usefixtures("spark")
def test_each_check_has_a_finding_of_driver_and_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with DevelopmentKeyService() as service:
        checks, pipes = checked(tmp_path, service.url, monkeypatch)
    assert list(checks) == NAMES
    assert [name for name, check in checks.items() if check["result"] == "failed"] == []
    assert checks["corporate-read"]["text"].endswith("can be read, by its key: no versions are kept there")
    assert "default" in checks["metastore"]["text"]
    progress = [message["text"] for message in pipes.messages if message["kind"] == "progress"]
    assert f"Metastore: ok: {checks['metastore']['text']}." in progress


@pytest.mark.spark
@pytest.mark.usefixtures("spark")
def test_a_failed_check_is_a_finding_with_its_next_step_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks, pipes = checked(tmp_path, "http://127.0.0.1:9", monkeypatch)
    assert [name for name, check in checks.items() if check["result"] == "failed"] == ["key-service"]
    assert "CDI_DKS_URL" in checks["key-service"]["fix"]
    assert pipes.messages[-1]["report"]["totals"]["failed"] == 1
    # Also in the log: a role that cannot write to the published root sends no report.
    [line] = [m["text"] for m in pipes.messages if m["kind"] == "progress" and m["text"].startswith("Key service")]
    assert checks["key-service"]["text"] in line
    assert checks["key-service"]["fix"] in line


def test_where_spark_does_not_start_the_rest_is_reported_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def no_spark(_: str) -> Any:
        raise CdiError(FailureClass.LAUNCH_FAILED, "Spark did not start: no memory", next_step="Read the log.")
        yield

    monkeypatch.setattr(job, "spark_session", no_spark)
    checks, _ = checked(tmp_path, "http://127.0.0.1:9", monkeypatch)
    assert list(checks) == [*NAMES[:-1], "workers", "metastore"]
    assert checks["workers"]["text"] == "Spark did not start: no memory"
    assert (checks["published-write"]["result"], checks["metastore"]["result"]) == ("ok", "note")


@pytest.mark.spark
def test_a_catalogue_that_does_not_respond_or_is_none_fails(spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer(_: str) -> NoReturn:
        raise OSError("connection refused by thrift://metastore:9083")

    monkeypatch.setattr(spark, "sql", no_answer)
    finding = job.check_metastore(spark)
    assert (finding.result, "connection refused" in finding.text) == (CheckResult.FAILED, True)
    assert "glue:GetDatabases" in str(finding.fix)


def test_a_failure_of_the_worker_alone_counts() -> None:
    bad = failed("no region", "Set it.")
    assert job.merged(ok("fine"), bad) == failed("in the driver: ok; on a worker: no region", "Set it.")
    assert job.merged(bad, ok("fine")) == bad
    assert job.merged(note("not needed"), None) == note("not needed")
