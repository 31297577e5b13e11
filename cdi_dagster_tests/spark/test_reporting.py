"""What a job reports to its launcher, with and without Pipes, and how the job ends."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from dagster_pipes import encode_param
from pyspark.sql import SparkSession

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.ingest.job import main
from cdi_dagster.spark.reporting import Reporter, correlated_logging, open_reporter
from cdi_dagster_tests.s3_server import REGION, new_s3_storage, s3_endpoint
from cdi_dagster_tests.spark.ingest_support import SampleDay

CONTEXT = {"asset_keys": None, "run_id": "r", "job_name": None, "retry_number": 0, "extras": {}}


def pipes_arguments(messages: dict[str, Any], context: dict[str, Any] | None = None) -> list[str]:
    return [
        "--dagster-pipes-context",
        encode_param(context or {"data": CONTEXT}),
        f"--dagster-pipes-messages={encode_param(messages)}",
    ]


def custom_messages(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        message = json.loads(line)
        if message["method"] == "report_custom_message":
            yield message["params"]["payload"]


def say_everything(reporter: Reporter) -> None:
    reporter.progress("half", bytes_done=1)
    reporter.report("ingest_daily", {"totals": {"read": 2}})
    reporter.failure(CdiError(FailureClass.DKS_FORBIDDEN, "No."))


SAID = [
    {"kind": "progress", "text": "half", "bytes_done": 1},
    {"kind": "report", "step": "ingest_daily", "report": {"totals": {"read": 2}}},
    {"kind": "failure", "failure": CdiError(FailureClass.DKS_FORBIDDEN, "No.").to_json()},
]


def test_messages_reach_a_launcher_beside_us_by_a_file(tmp_path: Path) -> None:
    messages = tmp_path / "messages"
    with open_reporter(["--one", *pipes_arguments({"path": str(messages)}), "two"]) as (reporter, rest):
        say_everything(reporter)
    assert rest == ["--one", "two"]
    lines = messages.read_text().splitlines()
    assert [json.loads(line)["method"] for line in (lines[0], lines[-1])] == ["opened", "closed"]
    assert list(custom_messages(lines)) == SAID


def test_messages_reach_a_launcher_of_emr_by_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    storage = new_s3_storage()
    storage.write("context.json", json.dumps(CONTEXT).encode())
    bucket = storage.root.removeprefix("s3://")
    arguments = pipes_arguments(
        {"bucket": bucket, "key_prefix": "messages"}, context={"bucket": bucket, "key": "context.json"}
    )
    with open_reporter(arguments) as (reporter, rest):
        say_everything(reporter)
    assert rest == []
    client = boto3.client("s3", endpoint_url=s3_endpoint(), region_name=REGION)
    found = client.list_objects_v2(Bucket=bucket, Prefix="messages/")["Contents"]
    lines = [line for item in found for line in storage.read(item["Key"]).decode().splitlines()]
    assert list(custom_messages(lines)) == SAID


def test_without_pipes_the_same_is_logged_with_the_correlation_id(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open_reporter(["--one"]) as (reporter, rest), correlated_logging("run-7%"):
        say_everything(reporter)
    assert rest == ["--one"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("[run-7%]" in line for line in lines)
    assert "DKS_FORBIDDEN: No. Next: Renew" in lines[-1]


def test_progress_that_cannot_be_sent_does_not_stop_the_job(tmp_path: Path) -> None:
    messages = tmp_path / "messages"
    with open_reporter(pipes_arguments({"path": str(messages)})) as (reporter, _):
        messages.unlink()
        messages.mkdir()
        reporter.progress("half")
        with pytest.raises(OSError, match="directory"):
            reporter.report("ingest_daily", {})
        messages.rmdir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--published-root": "/tmp/published"}, "file:///absolute/folder or s3://bucket"),
        ({"--published-root": "gs://bucket"}, "file:///absolute/folder or s3://bucket"),
        ({"--pinned-input": "pinned_input.json"}, "s3://bucket/name.json"),
        ({"--pinned-input": "s3://bucket"}, "s3://bucket/name.json"),
        ({"--max-rejected": "some"}, "a count such as 25"),
        ({"--correlation-id": "a/b"}, "cannot be a correlation id"),
        ({"--tasks-per-core": "0"}, "invalid choice"),
        ({"--dks-url": "not a url"}, "https://host"),
        ({"--storage-day": "2023-03-26"}, "unrecognized arguments"),
    ],
)
def test_a_wrong_command_line_exits_2_with_the_fix(
    file_day: SampleDay, capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    arguments = dict(zip(*[iter(file_day.arguments())] * 2, strict=True)) | change
    with pytest.raises(SystemExit) as raised:
        main([part for pair in arguments.items() for part in pair])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.spark
def test_a_job_that_succeeds_ends_with_its_report_and_0(
    file_day: SampleDay, spark: SparkSession, tmp_path: Path
) -> None:
    file_day.write()
    file_day.pin()
    messages = tmp_path / "messages"
    assert main([*file_day.arguments(), *pipes_arguments({"path": str(messages)})]) == 0
    said = list(custom_messages(messages.read_text().splitlines()))
    assert [said[0]["kind"], said[-2]["kind"], said[-1]["kind"]] == ["progress", "progress", "report"]
    assert said[-1]["report"] == file_day.left_by_run("ingest_report.json")


@pytest.mark.spark
def test_a_job_that_fails_ends_with_its_class_and_1(
    file_day: SampleDay, spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file_day.write(bad_envelopes=1)
    file_day.pin()
    messages = tmp_path / "messages"
    assert main([*file_day.arguments(), *pipes_arguments({"path": str(messages)})]) == 1
    said = list(custom_messages(messages.read_text().splitlines()))
    assert said[-1] == {"kind": "failure", "failure": file_day.failure_left().to_json()}
    assert said[-1]["failure"]["failure_class"] == "RECORDS_REJECTED"
    assert "ERROR [run-1]" in capsys.readouterr().err
