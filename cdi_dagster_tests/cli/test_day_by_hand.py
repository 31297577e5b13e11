"""A day by hand on real storage: sample, status, the gate, pin; each command's figures are those of the others."""

import json
import os
import socket
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from cdi_dagster.core.collections import find_collection
from cdi_dagster_tests.cli.conftest import Answer, Cdi
from cdi_dagster_tests.collections import AUDIT

DAY = ("--collection", "data:businessAudit", "--storage-day", "2023-03-26")
ROWS_DAY = ("--collection", "calculator:calculationParts", "--storage-day", "2023-03-26")
DAY_BEFORE = ("--collection", "data:businessAudit", "--storage-day", "2023-03-25")
EMR = {
    "CDI_DEPLOYMENT": "emr",
    "CDI_CORPORATE_ROOT": "s3://corporate",
    "CDI_PUBLISHED_ROOT": "s3://published",
    "CDI_EMR_BUNDLE_URI": "s3://published/bundles/1",
    "CDI_DKS_URL": "https://dks",
    "CDI_FIRST_STORAGE_DAY": "2023-01-01",
}


def sample(cdi: Cdi, of: tuple[str, ...] = DAY) -> Answer:
    answer = cdi("sample", *of, "--records", "120", "--objects", "6", "--json")
    assert answer.exit_code == 0, answer.stderr
    return answer


def test_a_day_that_is_not_coalesced_is_not_pinned_and_the_refusal_has_a_class(cdi: Cdi) -> None:
    sample(cdi)
    answer = cdi("pin", *DAY, "--json")
    assert answer.exit_code == 1
    assert answer.stderr.startswith("COALESCER_NOT_STARTED: ")
    assert "--override-gate" in answer.stderr
    assert answer.json["failure"]["failure_class"] == "COALESCER_NOT_STARTED"


def test_a_coalesced_day_is_pinned_and_status_says_so(cdi: Cdi, tmp_path: Path) -> None:
    written = sample(cdi).json
    assert cdi("status", *DAY, "--json").json["gate_open"] is False
    assert cdi("coalesce", *DAY).exit_code == 0

    answer = cdi("pin", *DAY, "-o", str(tmp_path / "pinned.json"), "--json")
    assert answer.exit_code == 0, answer.stderr
    assert answer.json["totals"] == {"objects": 3, "bytes": written["bytes"], "offsets": 120}
    assert json.loads((tmp_path / "pinned.json").read_text()) == answer.json

    status = cdi("status", *DAY, "--json").json
    assert (status["gate_open"], status["pinned"], status["pinned_is_current"]) == (True, True, True)
    assert (status["published"], status["export_day"]) == (False, "2023-03-27")
    day = status["day"]
    assert (day["objects"], day["bytes"], day["offsets"]) == (3, written["bytes"], 120)


def test_a_day_of_which_an_object_is_gone_is_not_to_be_overridden(cdi: Cdi, home: Path) -> None:
    sample(cdi)
    assert cdi("coalesce", *DAY).exit_code == 0
    next(path for path in (home / "corporate").rglob("*.jsonl.gz") if path.is_file()).unlink()
    answer = cdi("pin", *DAY)
    assert answer.stderr.startswith("COALESCER_UNKNOWN: ")
    assert "Next: Restore the objects" in answer.stderr
    assert "override" not in answer.stderr


def test_a_bad_file_name_in_an_earlier_day_leaves_the_status_of_a_day_as_it_is(cdi: Cdi, home: Path) -> None:
    sample(cdi)
    sample(cdi, DAY_BEFORE)
    before = home / "corporate" / find_collection(DAY[1]).on(date(2023, 3, 25)).corporate_prefix
    Path(os.fsdecode(os.fsencode(before) + b"/caf\xe9.gz")).write_bytes(b"x")
    answer = cdi("status", *DAY, "--json")
    assert answer.exit_code == 3, answer.stderr
    assert (answer.json["day"]["objects"], answer.json["size"].endswith("no earlier day to compare with")) == (
        6,
        True,
    )
    assert "is left out of the usual" in answer.stderr


def test_a_root_without_corporate_storage_is_named(cdi: Cdi, tmp_path: Path) -> None:
    root = (tmp_path / "elsewhere").as_uri()
    answer = cdi("pin", *DAY, "--corporate-root", root)
    assert answer.stderr.startswith(f"COALESCER_UNKNOWN: There is nothing under {root}/corporate_storage/")
    assert "override" not in answer.stderr


def test_pinning_a_day_without_objects_says_that_there_are_none(cdi: Cdi) -> None:
    sample(cdi, DAY_BEFORE)
    answer = cdi("pin", *DAY, "--override-gate")
    assert answer.exit_code == 1
    overridden, refused, _ = answer.stderr.splitlines()
    assert overridden.startswith("--override-gate: continuing although the coalescer is NOT_STARTED: ")
    assert refused.startswith("INPUT_INVALID: There are no objects under file:///")


def test_a_manifest_that_cannot_be_written_is_refused_before_anything_is_pinned(cdi: Cdi, home: Path) -> None:
    sample(cdi)
    assert cdi("coalesce", *DAY).exit_code == 0
    answer = cdi("pin", *DAY, "-o", "nowhere/pinned.json")
    assert (answer.exit_code, "nowhere is not a folder that can be written to" in answer.stderr) == (2, True)
    assert not list(home.rglob("pinned_input.json"))


@pytest.mark.parametrize(
    ("source", "state"), [({}, "NOT_STARTED"), ({"CDI_COALESCER_SOURCE": "batch"}, "UNKNOWN")], ids=["marker", "batch"]
)
def test_an_overridden_gate_is_reported_with_what_it_was_on_the_terminal_and_in_the_row(
    cdi: Cdi, home: Path, source: dict[str, str], state: str
) -> None:
    sample(cdi, DAY_BEFORE)
    no_aws = {"AWS_CONFIG_FILE": os.devnull, "AWS_REGION": "", "AWS_DEFAULT_REGION": ""}
    answer = cdi("ingest", *DAY, "--override-gate", **no_aws, **source)
    assert answer.stderr.startswith(f"--override-gate: continuing although the coalescer is {state}: ")
    (row,) = status_rows(home)
    assert row["Failure"].startswith("INPUT_INVALID: There are no objects")
    detail = json.loads(row["Detail"])
    assert (detail["gate_overridden"], detail["gate_was"].partition(":")[0]) == (True, state)


def test_ingest_refuses_to_run_beside_the_coalescer_and_starts_nothing(cdi: Cdi, home: Path) -> None:
    sample(cdi)
    answer = cdi("ingest", *DAY)
    assert answer.exit_code == 1
    assert answer.stderr.startswith("COALESCER_NOT_STARTED: ")
    assert not list((home / "published").rglob("pinned_input.json"))
    assert not list((home / "published").rglob("daily"))
    assert not (home / "runs").exists()


@pytest.mark.spark
def test_ingest_counts_rejects_and_publishes_nothing_unless_they_are_allowed(
    cdi: Cdi, home: Path, tmp_path: Path
) -> None:
    from cdi_dagster.demo.key_service import DevelopmentKeyService

    assert cdi("sample", *DAY, "--records", "300", "--objects", "6", "--bad-envelopes", "3").exit_code == 0
    assert cdi("coalesce", *DAY).exit_code == 0
    with DevelopmentKeyService() as service:
        refused = cdi("ingest", *DAY, "--dks-url", service.url, "--json")
        allowed = cdi("ingest", *DAY, "--dks-url", service.url, "--max-rejected", "1%", "--json")
    assert refused.exit_code == 1
    assert refused.stderr.count("RECORDS_REJECTED: 3 of 300 envelopes were rejected") == 1
    assert "Next: " in refused.stderr
    assert refused.json["failure"]["failure_class"] == "RECORDS_REJECTED"
    assert allowed.exit_code == 0, allowed.stderr
    assert (allowed.json["read"], allowed.json["published"], allowed.json["rejected"]) == (300, 297, 3)
    published = home / "published/corporate_data_ingestion/json/daily/2023-03-27/data/businessAudit"
    assert json.loads((published / "_SUCCESS").read_text())["published"] == 297
    status = cdi("status", *DAY, "--json").json
    assert (status["published_is_current"], status["published_records"]) == (True, 297)
    assert (status["missing_tables"], status["is_whole"]) == (list(AUDIT.table_names), False)
    shown = " ".join(cdi("status", *DAY).stdout.split())
    assert f"no, TABLES_MISSING: {', '.join(AUDIT.table_names)}." in shown
    assert status_row(home, allowed.json["correlation_id"])["Status"] == "IN_PROGRESS"

    temp = tmp_path / "temp"
    temp.mkdir()
    tables = cdi("tables", *DAY, "--json", JAVA_TOOL_OPTIONS=f"-Djava.io.tmpdir={temp}")
    assert tables.exit_code == 0, tables.stderr
    assert [path.name for path in temp.rglob("*_resources")] == []  # Hive makes one for each session
    assert {table["rows"] for table in tables.json["tables"]} == {297}
    status = cdi("status", *DAY, "--json").json
    assert (status["missing_tables"], status["is_whole"]) == ([], True)
    told = [status_row(home, answer.json["correlation_id"]) for answer in (allowed, tables)]
    assert [(row["Status"], row["CurrentStep"], row["Date"]) for row in told] == [
        ("COMPLETED", "ingest_daily", "2023-03-27"),
        ("COMPLETED", "publish_tables", "2023-03-27"),
    ]
    assert {row["Daily_Records_URI"] for row in told} == {f"{published.as_uri()}/"}
    assert {(row["Run_Id"], row.get("Dagster_Run_Id")) for row in told} == {("1", None)}
    (failed,) = [row for row in status_rows(home) if row["Status"] == "FAILED"]
    assert failed["Failure"].startswith("RECORDS_REJECTED: 3 of 300")


@pytest.mark.spark
def test_a_home_beyond_ascii_is_used_whatever_the_locale(cdi: Cdi, tmp_path: Path) -> None:
    from cdi_dagster.demo.key_service import DevelopmentKeyService

    place = tmp_path / "données €"
    place.mkdir()
    locale = {"LC_ALL": "C", "CDI_HOME": str(place / "home")}
    assert cdi("sample", *DAY, "--records", "60", "--objects", "2", **locale).exit_code == 0
    assert cdi("coalesce", *DAY, **locale).exit_code == 0
    with DevelopmentKeyService() as service:
        answer = cdi("ingest", *DAY, "--tables", "--dks-url", service.url, "--json", **locale)
    assert answer.exit_code == 0, answer.stderr
    assert cdi("status", *DAY, "--json", **locale).json["is_whole"] is True
    # A JVM in a locale without UTF-8 wrote to a folder of another name beside it.
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


@pytest.mark.parametrize("command", [["ingest", "--tables"], ["tables"]])
def test_tables_of_one_day_of_a_keyed_collection_are_refused_before_anything_starts(
    cdi: Cdi, home: Path, command: list[str]
) -> None:
    answer = cdi(*command, *ROWS_DAY)
    assert answer.exit_code == 1
    assert answer.stderr.startswith("INPUT_INVALID: calculator:calculationParts is a keyed collection")
    assert not home.exists()


@pytest.mark.spark
def test_a_day_of_a_keyed_collection_is_ingested_shown_and_has_its_status(cdi: Cdi, home: Path) -> None:
    from cdi_dagster.demo.key_service import DevelopmentKeyService

    written = cdi("sample", *ROWS_DAY, "--records", "120", "--objects", "4", "--bad-envelopes", "2", "--json").json
    assert cdi("coalesce", *ROWS_DAY).exit_code == 0
    with DevelopmentKeyService() as service:
        answer = cdi("ingest", *ROWS_DAY, "--max-rejected", "2", "--dks-url", service.url, "--json")
    assert answer.exit_code == 0, answer.stderr
    assert (answer.json["read"], answer.json["published"]) == (written["records"], 118)
    (mark,) = (home / "published").rglob("export_year=2023/export_month=3/export_day=27/_SUCCESS")
    assert set(json.loads(mark.read_text())["db_types"]) == {"INSERT", "DELETE"}
    status = cdi("status", *ROWS_DAY, "--json")
    assert (status.exit_code, status.json["is_whole"]) == (0, True)
    shown = [json.loads(line) for line in cdi("show", *ROWS_DAY, "--limit", "200").stdout.splitlines()]
    assert len(shown) == 118
    assert list(shown[0]) == ["id", "db_type", "val", "kafka_partition", "kafka_offset"]
    assert all(json.loads(row["val"])["_id"] == json.loads(row["id"]) for row in shown)
    assert {row["db_type"] for row in shown} == {"INSERT", "DELETE"}
    offset = shown[-1]["kafka_offset"]
    trace = cdi("show", *ROWS_DAY, "--trace", f"{shown[-1]['kafka_partition']}:{offset}", "--json").json
    assert (trace["fate"], trace["part_key"]) == ("record", None)
    assert cdi("rejects", "show", *ROWS_DAY, "--json").json["rejected"] == 2
    (row,) = [row for row in status_rows(home) if row["CurrentStep"] == "ingest_daily"]
    assert (row["DataProduct"], row["Status"]) == ("CDI-calculator:calculationParts", "COMPLETED")


def test_tables_are_refused_where_there_are_none_or_they_are_elsewhere(cdi: Cdi) -> None:
    answer = cdi("tables", "--collection", "core:claimant", "--storage-day", "2023-03-26")
    assert (answer.exit_code, "No tables are published of core:claimant" in answer.stderr) == (2, True)
    for command in (["tables"], ["ingest", "--tables"]):
        answer = cdi(*command, *DAY, **EMR)
        assert (answer.exit_code, "Materialise them in the Dagster UI" in answer.stderr) == (2, True)


@pytest.mark.spark
@pytest.mark.kill
def test_sigterm_ends_an_ingestion_as_ctrl_c_does_and_its_row_says_so(cdi: Cdi, home: Path) -> None:
    sample(cdi)
    assert cdi("coalesce", *DAY).exit_code == 0
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = [sys.executable, "-m", "cdi_dagster.cli", "ingest", *DAY]
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen(
            command, env={**os.environ, "CDI_HOME": str(home), "CDI_DKS_URL": url}, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr
            next(line for line in process.stderr if line.startswith("  Reading 3 objects"))
            process.terminate()
            assert process.stderr.read().splitlines()[-1] == "Stopped; nothing is left running."
    assert process.returncode == 130
    (row,) = status_rows(home)
    assert (row["Status"], row["Failure"]) == ("FAILED", "The run was terminated.")
    # The lease was given back: the next one need not wait for it to run out.
    (lease,) = (home / "published").rglob("ingestion_lease.json")
    assert json.loads(lease.read_text())["released"] is True


def status_rows(home: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text()) for path in sorted((home / "status").iterdir())]


def status_row(home: Path, correlation_id: str) -> dict[str, str]:
    (row,) = [row for row in status_rows(home) if row["Correlation_Id"] == correlation_id]
    return row


def test_the_same_commands_work_on_buckets(cdi: Cdi) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        aws = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "eu-west-2",
            "CDI_CORPORATE_ROOT": "s3://corporate",
            "CDI_PUBLISHED_ROOT": "s3://published",
        }
        s3 = boto3.client(
            "s3",
            endpoint_url=aws["AWS_ENDPOINT_URL"],
            region_name="eu-west-2",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        for bucket in ("corporate", "published"):
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
        assert cdi("sample", *DAY, "--records", "120", "--objects", "6", **aws).exit_code == 0
        assert cdi("coalesce", *DAY, **aws).exit_code == 0
        answer = cdi("pin", *DAY, "--json", **aws)
        assert answer.exit_code == 0, answer.stderr
        assert answer.json["totals"]["offsets"] == 120
        assert cdi("status", *DAY, "--json", **aws).json["pinned_is_current"] is True
        checks = ("--only", "corporate-root", "--only", "published-root", "--only", "aws")
        assert cdi("doctor", *checks, "--json", **aws).json["ok"]
        # Where Dagster launches clusters: it is stated that this does not. The table of status rows is not there.
        answer = cdi("ingest", *DAY, **{**EMR, **aws})
        assert answer.exit_code == 1
        assert "CDI_DEPLOYMENT is emr: cdi ingest runs Spark on this machine all the same." in answer.stderr
        answer = cdi("status", *DAY, **{**aws, "CDI_PUBLISHED_ROOT": "s3://no-such-bucket"})
        assert answer.exit_code == 1
        assert "no-such-bucket" in answer.stderr
        assert "Traceback" not in answer.stderr
    finally:
        server.stop()
