"""The job from pinned input to published records, with a real Spark: good days, rejects, and bad inputs."""

import base64
import gzip
import hashlib
import json
import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import orjson
import pytest
from pyspark.sql import SparkSession

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.object_names import parse_object_name
from cdi_dagster.core.storage_keys import pinned_input_key
from cdi_dagster.spark.ingest import job
from cdi_dagster.spark.ingest.reading import MAX_ENVELOPE_BYTES
from cdi_dagster.storage import PreparedObject, open_storage
from cdi_dagster_tests.s3_server import REGION, s3_endpoint
from cdi_dagster_tests.spark.ingest_support import SampleDay
from cdi_dagster_tests.spark.scripted_key_service import ScriptedKeyService, status

pytestmark = pytest.mark.spark


def failure(day: SampleDay, spark: SparkSession, *more: str, correlation_id: str = "run-1") -> CdiError:
    """Run a job that must fail, publish nothing and leave nothing but its report; return why."""
    before = day.published_keys()
    with pytest.raises(CdiError) as raised:
        day.ingest(spark.sparkContext, *more, correlation_id=correlation_id)
    assert day.published_keys() == before
    assert day.failure_left(correlation_id).to_json() == raised.value.to_json()
    return raised.value


def test_a_day_is_published_whole_with_its_mark_and_report(day: SampleDay, spark: SparkSession) -> None:
    summary = day.write(records=1_000, objects=12)
    day.pin()
    report = day.ingest(spark.sparkContext)

    records = day.records()
    assert records.total() == summary.records == report.read == report.published
    assert all(json.loads(line)["AUDIT_EVENT"] for line in records)
    mark = day.mark()
    assert mark is not None
    assert mark["parts"][0]["key"].startswith(f"{day.records_prefix}part-00000-")
    assert {name: mark[name] for name in ("collection", "storage_day", "export_day", "correlation_id")} == {
        "collection": "data:businessAudit",
        "storage_day": "2023-03-26",
        "export_day": "2023-03-27",
        "correlation_id": "run-1",
    }
    assert mark["fingerprint"] == report.fingerprint
    assert mark["record_bytes"] == sum(len(line) + 1 for line in records.elements())
    assert mark["published_bytes"] == sum(part["size_bytes"] for part in mark["parts"]) == report.published_bytes
    assert len(mark["parts"]) == report.parts == 6
    assert datetime.fromisoformat(mark["published_at"]) <= datetime.now(UTC)
    assert day.left_by_run("ingest_report.json") == orjson.loads(orjson.dumps(report.to_json()))
    assert day.left_by_run("failure.json") is None
    assert report.totals["input_bytes"] == summary.stored_bytes
    assert [counts.key for counts in report.objects] == list(summary.keys)
    assert 0 < report.key_service.calls <= 2 * 12
    assert (report.published_prefix, report.rejects_prefix) == (day.records_prefix, None)


def test_a_day_of_coalesced_objects_with_every_oddity_gives_the_same_records(
    file_day: SampleDay, tmp_path: Path, spark: SparkSession
) -> None:
    plain = file_day
    summary = plain.write(records=120, objects=6, kafka_partitions=1)
    plain.pin()
    plain.ingest(spark.sparkContext)
    odd = SampleDay(
        corporate=open_storage((tmp_path / "odd").as_uri()),
        published=open_storage((tmp_path / "odd-published").as_uri()),
        dks_url=plain.dks_url,
    )
    members = [gzip.decompress(plain.corporate.read(key)) for key in summary.keys]
    members[0] = members[0].rstrip(b"\n")  # unterminated, in the middle of the coalesced object
    members[1] = members[1].replace(b"\n", b"\r\n")
    members[2] = b"\n" + members[2].replace(b"\n", b"\n\n \r\n", 3)
    first, second = members[:4], members[4:]
    names = [parse_object_name(key) for key in summary.keys]
    prefix = odd.collection.on(odd.storage_day).corporate_prefix
    stem = f"{prefix}{odd.collection.topic}_0_"
    odd.corporate.write(
        f"{stem}{names[0].first_offset}_{names[3].last_offset}.jsonl.gz",
        b"".join(gzip.compress(member) for member in first) + bytes(512),
    )
    odd.corporate.write(
        f"{stem}{names[4].first_offset}_{names[5].last_offset}.jsonl.gz.2",
        b"".join(gzip.compress(member) for member in second),
    )
    odd.pin()
    report = odd.ingest(spark.sparkContext)
    assert odd.records() == plain.records()
    assert report.totals["blank_lines"] == 7
    assert report.rejected == 0


def test_publishing_again_replaces_the_day_and_says_the_same(day: SampleDay, spark: SparkSession) -> None:
    day.write()
    day.pin()
    first = day.ingest(spark.sparkContext)
    records, keys = day.records(), day.published_keys()
    second = day.ingest(spark.sparkContext, correlation_id="run-2")
    assert day.records() == records
    assert set(day.published_keys()) & set(keys) == {"_SUCCESS"}
    assert second.objects == first.objects


def test_too_many_rejects_publish_nothing_until_a_higher_limit_lets_them_be(
    day: SampleDay, spark: SparkSession
) -> None:
    summary = day.write(records=400, objects=5, bad_envelopes=9)
    day.pin()
    refused = failure(day, spark, "--max-rejected", "2%")
    assert refused.failure_class is FailureClass.RECORDS_REJECTED
    assert "9 of 400 envelopes were rejected" in refused.cause
    assert refused.detail["samples"]
    report_left = day.left_by_run("ingest_report.json")
    assert report_left is not None
    assert report_left["published_prefix"] is None
    assert day.records().total() == 0
    rejects = day.rejects()
    assert Counter(reject["reason"] for reject in rejects) == refused.detail["rejected_by_reason"]
    assert len(rejects) == summary.bad_envelopes

    report = day.ingest(spark.sparkContext, "--max-rejected", "9", correlation_id="run-2")
    assert (report.published, report.rejected) == (391, 9)
    assert day.records().total() == 391
    assert len(day.rejects("run-2")) == 9
    assert day.rejects() == rejects


def test_a_reject_keeps_its_envelope_place_and_offset(file_day: SampleDay, spark: SparkSession) -> None:
    file_day.write(records=90, objects=4, bad_envelopes=12)
    file_day.pin()
    file_day.ingest(spark.sparkContext, "--max-rejected", "100%")
    rejects = file_day.rejects()
    assert len(rejects) == 12
    for reject in rejects:
        lines = gzip.decompress(file_day.corporate.read(reject["key"])).split(b"\n")
        stored = lines[reject["line_number"] - 1]
        kept = reject["envelope"].encode() if "envelope" in reject else base64.b64decode(reject["envelope_base64"])
        assert kept == stored
        assert reject["offset"] == parse_object_name(reject["key"]).first_offset + reject["line_number"] - 1
    file_day.ingest(spark.sparkContext, "--max-rejected", "100%", "--allow-sparse-offsets", correlation_id="run-2")
    assert {reject["offset"] for reject in file_day.rejects("run-2")} == {None}


def test_odd_lines_are_rejects_with_what_can_be_kept_of_them(file_day: SampleDay, spark: SparkSession) -> None:
    summary = file_day.write(records=20, objects=1, kafka_partitions=1)
    lines = gzip.decompress(file_day.corporate.read(summary.keys[0])).split(b"\n")
    long = b'{"message": "' + b"x" * (2 * MAX_ENVELOPE_BYTES) + b'"}'
    lines[3], lines[7] = b"\xff not utf-8", long
    file_day.corporate.write(summary.keys[0], gzip.compress(b"\n".join(lines), 1))
    file_day.pin()
    report = file_day.ingest(spark.sparkContext, "--max-rejected", "2")
    assert (report.published, dict(report.totals["rejected_by_reason"])) == (18, {"envelope": 2})
    by_line = {reject["line_number"]: reject for reject in file_day.rejects()}
    assert base64.b64decode(by_line[4]["envelope_base64"]) == lines[3]
    assert by_line[8]["envelope_bytes"] == len(long)
    assert by_line[8]["envelope_sha256"] == hashlib.sha256(long).hexdigest()
    assert "envelope" not in by_line[8]


@pytest.mark.parametrize("damage", ["truncated", "garbage", "plain", "checksum"])
def test_an_object_that_is_not_sound_gzip_stops_the_day_and_is_named(
    file_day: SampleDay, spark: SparkSession, damage: str
) -> None:
    summary = file_day.write()
    key = summary.keys[2]
    stored = file_day.corporate.read(key)
    damaged = {
        "truncated": stored[:-10],
        "garbage": stored + b"garbage",
        "plain": gzip.decompress(stored),
        "checksum": stored[:-6] + bytes([stored[-6] ^ 1]) + stored[-5:],
    }
    file_day.corporate.write(key, damaged[damage])
    file_day.pin()
    found = failure(file_day, spark)
    assert found.failure_class is FailureClass.INPUT_INVALID
    assert found.detail["key"] == key
    assert found.detail["compressed_offset"] >= 0


@pytest.mark.parametrize("change", ["gone", "rewritten"])
def test_an_object_that_is_not_as_pinned_stops_the_day_and_is_named(
    day: SampleDay, spark: SparkSession, change: str
) -> None:
    summary = day.write()
    day.pin()
    key = summary.keys[3]
    if change == "gone":
        day.corporate.delete([key])
    else:
        day.corporate.write(key, gzip.compress(b"{}\n" * 60))
    found = failure(day, spark)
    assert found.failure_class is FailureClass.INPUT_CHANGED
    assert found.detail["key"] == key
    assert key in found.cause
    assert found.detail["noticed_at"] in found.cause


def test_a_versioned_bucket_gives_the_pinned_version_whatever_has_happened_since(
    s3_day: SampleDay, spark: SparkSession
) -> None:
    client = boto3.client("s3", endpoint_url=s3_endpoint(), region_name=REGION)
    client.put_bucket_versioning(
        Bucket=s3_day.corporate.root.removeprefix("s3://"), VersioningConfiguration={"Status": "Enabled"}
    )
    summary = s3_day.write()
    s3_day.pin()
    s3_day.corporate.delete([summary.keys[0]])
    s3_day.corporate.write(summary.keys[1], b"something else")
    assert s3_day.ingest(spark.sparkContext).published == summary.records
    assert s3_day.records().total() == summary.records


def test_fewer_envelopes_than_offsets_do_not_reconcile_unless_allowed(file_day: SampleDay, spark: SparkSession) -> None:
    summary = file_day.write(records=50, objects=2)
    lines = gzip.decompress(file_day.corporate.read(summary.keys[0])).splitlines(keepends=True)
    file_day.corporate.write(summary.keys[0], gzip.compress(b"".join(lines[:-1])))
    file_day.pin()
    found = failure(file_day, spark)
    assert found.failure_class is FailureClass.COUNTS_DO_NOT_RECONCILE
    report = file_day.left_by_run("ingest_report.json")
    assert report is not None
    assert (report["published_prefix"], report["totals"]["read"]) == (None, 49)
    assert file_day.ingest(spark.sparkContext, "--allow-sparse-offsets").published == 49


@pytest.mark.parametrize(("code", "expected"), [(403, FailureClass.DKS_FORBIDDEN), (503, FailureClass.DKS_UNAVAILABLE)])
def test_a_key_service_that_refuses_stops_the_day_with_few_calls(
    file_day: SampleDay, spark: SparkSession, code: int, expected: FailureClass
) -> None:
    file_day.write(records=400, objects=40)
    file_day.pin()
    with ScriptedKeyService(afterwards=status(code)) as service:
        file_day.dks_url = service.url
        found = failure(file_day, spark)
    assert found.failure_class is expected
    if code == 403:
        assert len(service.requests) <= 2 * 16  # two workers, one block each: nothing was tried again


def test_a_full_or_closed_storage_is_said_to_be_so(file_day: SampleDay, spark: SparkSession, tmp_path: Path) -> None:
    file_day.write()
    file_day.pin()
    uploads = tmp_path / "published" / ".cdi-staging" / "uploads"
    shutil.rmtree(uploads, ignore_errors=True)
    uploads.write_text("in the way")
    with pytest.raises(CdiError) as raised:
        file_day.ingest(spark.sparkContext)
    assert raised.value.failure_class is FailureClass.JOB_FAILED
    assert file_day.published.root in raised.value.cause


def test_an_empty_day_is_published_empty_only_where_that_is_allowed(day: SampleDay, spark: SparkSession) -> None:
    day.pin(allow_empty=True)
    found = failure(day, spark)
    assert found.failure_class is FailureClass.INPUT_INVALID
    assert "--allow-empty" in found.next_step
    report = day.ingest(spark.sparkContext, "--allow-empty")
    assert (report.read, report.parts, day.published_keys()) == (0, 0, ["_SUCCESS"])
    mark = day.mark()
    assert mark is not None
    assert (mark["published"], mark["parts"]) == (0, [])
    assert day.left_by_run("failure.json") is None


def test_a_missing_or_foreign_manifest_is_said_to_be_so(file_day: SampleDay, spark: SparkSession) -> None:
    with pytest.raises(CdiError, match="no pinned input at") as raised:
        file_day.ingest(spark.sparkContext)
    assert raised.value.failure_class is FailureClass.INPUT_INVALID
    file_day.published.write(pinned_input_key(file_day.collection.on(file_day.storage_day)), b"not json")
    with pytest.raises(CdiError, match="is not JSON"):
        file_day.ingest(spark.sparkContext)


def test_rejects_of_an_earlier_attempt_of_the_same_run_do_not_stay(file_day: SampleDay, spark: SparkSession) -> None:
    file_day.write(records=60, objects=2, bad_envelopes=3)
    file_day.pin()
    failure(file_day, spark)
    assert len(file_day.rejects()) == 3
    file_day.write(records=60, objects=2)
    file_day.pin()
    assert file_day.ingest(spark.sparkContext).rejected == 0
    assert file_day.rejects() == []


def test_a_failing_run_discards_its_own_uploads_not_those_of_the_run_that_took_over_its_day(
    file_day: SampleDay, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_day.write(records=60, objects=2, bad_envelopes=3)
    file_day.pin()
    of_next: list[PreparedObject] = []
    combine = job.combine

    def combine_late(*arguments: Any) -> Any:
        with file_day.published.upload(f"{file_day.records_prefix}part-0.jsonl.gz", group="next") as upload:
            upload.write(b"records")
            of_next.append(upload.prepare())
        assert uploads_of(tmp_path / "published") == {"=run-1", "=next"}
        return combine(*arguments)

    monkeypatch.setattr(job, "combine", combine_late)
    failure(file_day, spark)
    assert uploads_of(tmp_path / "published") == {"=next"}
    file_day.published.publish(file_day.records_prefix, of_next, b"mark", group="next")
    assert file_day.published_keys() == ["_SUCCESS", "part-0.jsonl.gz"]


def uploads_of(root: Path) -> set[str]:
    return {path.name for path in (root / ".cdi-staging" / "uploads").glob("=*")}
