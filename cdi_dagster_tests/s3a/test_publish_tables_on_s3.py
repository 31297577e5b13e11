"""publish_tables on S3, read through Spark's real S3A: what is stored, what a cut or a kill leaves."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path

import boto3
import pytest

from cdi_dagster.core.spark_jobs import PUBLISH_TABLES
from cdi_dagster.core.storage_keys import tables_report_key
from cdi_dagster.core.tables_report import TablesReport
from cdi_dagster.local_spark.spark_process import run_spark_step
from cdi_dagster.spark.tables.locations import partition_prefix
from cdi_dagster.storage import Encryption, Storage, use_encryption
from cdi_dagster.table_definitions import read_table_definition
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.processes import kill_session
from cdi_dagster_tests.s3_server import REGION, new_s3_storage, s3_endpoint
from cdi_dagster_tests.s3a.spark_job import Once, keep_versions, killed_at, s3_at, spark_config
from cdi_dagster_tests.spark.tables.daily_records import DAY, EXPORT_DAY, MANAGED, RAW, publish_records, record
from cdi_dagster_tests.storage.faulty_s3 import Proxy
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("s3a_jars"), pytest.mark.timeout(1800)]

PART = "part-00001-f1.jsonl.gz"
SHIPPED = files("cdi_dagster.table_definitions").joinpath("business_audit.json")
TABLES = {table.name: table for table in read_table_definition(str(SHIPPED)).tables}
Tables = dict[str, list[str]]


@dataclass(frozen=True)
class PublishedDay:
    """The tables of a day on S3, published once; what was asked of S3 for it; where its metastore is."""

    storage: Storage
    folder: Path
    requests: list[tuple[str, str, str | None]]
    cut: bool


def records(number: int) -> list[str]:
    return [record(number, AUDIT_ID=f"{name}-{number}", notes=name * 3000) for name in ("a", "b", "c", "d")]


def ask(published: Storage, correlation_id: str) -> list[str]:
    where = ["--published-root", published.root, "--collection", AUDIT.id, "--storage-day", str(DAY)]
    return [*where, "--correlation-id", correlation_id, "--table-definition", str(SHIPPED)]


def write_daily_records(published: Storage, number: int) -> None:
    first, *others = records(number)
    publish_records(published, [first], others, fingerprint=f"f{number}")


def attempts(published: Storage, table: str) -> set[str]:
    """The folders of a partition's attempts."""
    prefix = partition_prefix(TABLES[table], date.fromisoformat(EXPORT_DAY))
    return {stored.key.removeprefix(prefix).split("/")[0] for stored in published.list(prefix)} - {""}


def table_prefix(table: str) -> str:
    return partition_prefix(TABLES[table], date.fromisoformat(EXPORT_DAY))


@contextmanager
def encrypting() -> Iterator[None]:
    # Not aws:kms: Amazon's SDK in S3A refuses a KMS key over plain HTTP, which is all that the tests' server speaks.
    use_encryption(Encryption(algorithm="AES256"))
    try:
        yield
    finally:
        use_encryption(None)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, s3a_jars: tuple[Path, ...]) -> PublishedDay:
    """Published as the local launcher and `cdi ingest` do it, over a connection that is cut once, to a bucket that
    keeps versions."""
    published, folder = new_s3_storage(), tmp_path_factory.mktemp("s3a")
    keep_versions(published)
    write_daily_records(published, 1)
    cut = Once(lambda method, path: method == "GET" and path.endswith(PART), body_bytes=60)
    with Proxy(s3_endpoint(), cut) as proxy, s3_at(proxy.url), encrypting():
        ended = run_spark_step(
            PUBLISH_TABLES, ask(published, "c1"), config=spark_config(folder), correlation_id="c1", on_line=print
        )
    assert ended.exit_code == 0, ended.log_tail
    return PublishedDay(published, folder, proxy.requests, cut.happened)


def test_every_table_is_on_s3_with_the_records_of_the_day(day: PublishedDay) -> None:
    report = TablesReport.from_json(json.loads(day.storage.read(tables_report_key(AUDIT.on(DAY), "c1"))))
    assert [(table.kind, table.rows) for table in report.tables] == [
        ("raw", 4),
        ("managed", 4),
        ("view", 4),
        ("view", 4),
    ]
    for table in report.tables[:2]:
        assert table.location is not None
        prefix = table.location.removeprefix(f"{day.storage.root}/").replace("%3D", "=")
        stored = [found for found in day.storage.list(prefix) if found.key.endswith(".orc")]
        assert (table.files, table.stored_bytes) == (len(stored), sum(found.size_bytes for found in stored))
        assert table.files == 1


def test_what_the_job_wrote_is_encrypted_as_the_settings_choose(day: PublishedDay) -> None:
    client = boto3.client("s3", endpoint_url=s3_endpoint(), region_name=REGION)
    bucket = day.storage.root.removeprefix("s3://")
    written = [tables_report_key(AUDIT.on(DAY), "c1")]
    written += [stored.key for table in (RAW, MANAGED) for stored in day.storage.list(table_prefix(table))]
    assert sum(key.endswith(".orc") for key in written) == 2
    for key in written:
        assert client.head_object(Bucket=bucket, Key=key).get("ServerSideEncryption") == "AES256", key


def test_the_connection_was_cut_in_a_part_and_a_worker_read_on(day: PublishedDay) -> None:
    assert day.cut
    asked = [asked for method, path, asked in day.requests if method == "GET" and PART in path]
    assert any(asked and asked.startswith("bytes=60-") for asked in asked)


def test_nothing_is_renamed(day: PublishedDay) -> None:
    """Every file appears by the completion of its upload; a rename would be a plain PUT, which S3 takes for a copy."""
    files = [
        (method, path)
        for method, path, _ in day.requests
        if method in ("PUT", "POST") and ".orc" in path and "/_publications/" not in path
    ]
    completed = [path for method, path in files if method == "POST" and "uploadId=" in path]
    assert len(completed) == 2
    assert not [path for method, path in files if method == "PUT" and "partNumber=" not in path]


def test_every_attempt_is_marked_with_what_it_was_made_from(day: PublishedDay) -> None:
    for table in (RAW, MANAGED):
        [attempt] = attempts(day.storage, table)
        prefix = f"{partition_prefix(TABLES[table], date.fromisoformat(EXPORT_DAY))}{attempt}/"
        mark = json.loads(day.storage.read(f"{prefix}_SUCCESS"))
        assert (mark["table"], mark["rows"], mark["fingerprint"], mark["correlation_id"]) == (table, 4, "f1", "c1")
        assert json.loads(day.storage.read(f"{prefix}_attempt.json")) == {**mark, "replaces": None}
        assert len([stored for stored in day.storage.list(prefix)]) == 3


@pytest.mark.any_spark
@pytest.mark.kill
def test_a_job_killed_while_a_table_is_committed_and_one_between_tables_leave_each_table_whole(
    day: PublishedDay,
) -> None:
    write_daily_records(day.storage, 2)
    killed_at(a_file_of_managed_has_appeared, PUBLISH_TABLES, ask(day.storage, "c2"), config=spark_config(day.folder))
    assert len(attempts(day.storage, RAW)) == len(attempts(day.storage, MANAGED)) == 2

    found = kill_between_tables(day, "c3")
    assert found == {"raw": sorted(records(1)), "managed": ["a-1", "b-1", "c-1", "d-1"]}

    found, before, then, after = look_and_publish(day, "c4")
    assert [place.partition(":")[0] for place in before] == ["s3a", "s3a"]
    assert [place.partition(":")[0] for place in after] == ["s3", "s3"]
    assert found == {"raw": sorted(records(2)), "managed": ["a-1", "b-1", "c-1", "d-1"]}
    assert then == {"raw": sorted(records(2)), "managed": ["a-2", "b-2", "c-2", "d-2"]}
    # The one that is published and the one before; what was killed is gone.
    assert len(attempts(day.storage, RAW)) == len(attempts(day.storage, MANAGED)) == 2


def a_file_of_managed_has_appeared(method: str, path: str) -> bool:
    return method == "POST" and "auditlog_managed" in path and ".orc" in path and "uploadId=" in path


def start_child(day: PublishedDay, what: str, correlation_id: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "cdi_dagster_tests.s3a.tables_child", str(day.folder), what]
    return subprocess.Popen(
        [*command, *ask(day.storage, correlation_id), "--tables", "auditlog_raw,auditlog_managed"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill_between_tables(day: PublishedDay, correlation_id: str) -> Tables:
    """Return what a reader finds before the publication that is killed."""
    with s3_at(s3_endpoint()), start_child(day, "stop", correlation_id) as victim:
        try:
            assert victim.stdout is not None
            found: Tables = json.loads(victim.stdout.readline())
            assert victim.stdout.readline() == '"raw is published, managed is not"\n'
        finally:
            kill_session(victim.pid)
    return found


def look_and_publish(day: PublishedDay, correlation_id: str) -> tuple[Tables, list[str], Tables, list[str]]:
    """Return what a reader finds where, and finds where once the tables are published again."""
    with s3_at(s3_endpoint()), start_child(day, "go on", correlation_id) as child:
        said, _ = child.communicate(timeout=2 * PATIENCE_SECONDS)
    assert child.returncode == 0
    found, before, then, after = map(json.loads, said.splitlines())
    return found, before, then, after
