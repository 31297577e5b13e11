"""ingest_daily on S3 as S3 is: many objects, versions, connections that are cut, and a job killed in the middle."""

import gzip
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from cdi_dagster.core.object_names import parse_object_name
from cdi_dagster.core.spark_jobs import INGEST_DAILY
from cdi_dagster.ingestion.pinning import read_pinned_input
from cdi_dagster.local_spark.spark_process import run_spark_step
from cdi_dagster_tests.s3_server import new_s3_storage, s3_endpoint
from cdi_dagster_tests.s3a.spark_job import (
    Once,
    keep_versions,
    killed_at,
    s3_at,
    spark_config,
    unfinished_uploads,
)
from cdi_dagster_tests.spark.ingest_support import SampleDay
from cdi_dagster_tests.storage.faulty_s3 import Proxy

pytestmark = pytest.mark.spark

Records = Counter[bytes]


def as_a_reader_sees(day: SampleDay) -> Records | None:
    """Read the day as a reader that respects `_SUCCESS`: the parts that it names, or nothing where there is none."""
    mark = day.mark()
    if mark is None:
        return None
    found: Records = Counter()
    for part in mark["parts"]:
        found.update(gzip.decompress(day.published.read(part["key"])).splitlines())
    assert found.total() == mark["published"]
    return found


def test_a_day_of_over_a_thousand_objects_is_read_as_pinned_whatever_is_deleted_since(
    s3_day: SampleDay, spark: SparkSession
) -> None:
    keep_versions(s3_day.corporate)
    summary = s3_day.write(records=1100, objects=1050)
    s3_day.pin()
    pinned = read_pinned_input(s3_day.published, s3_day.collection.on(s3_day.storage_day))
    assert pinned is not None
    assert len(pinned.objects) == 1050  # a listing has 1,000 a page
    gone = [found.key for found in pinned.objects[::350]]
    s3_day.corporate.delete(gone)
    assert not any(s3_day.corporate.head(key) for key in gone)

    report = s3_day.ingest(spark.sparkContext)

    assert (report.read, report.published) == (1100, 1100)
    assert s3_day.records().total() == summary.records == 1100


def test_connections_cut_in_the_middle_cost_nothing(s3_day: SampleDay, tmp_path: Path) -> None:
    large = s3_day.write(records=1500, objects=3)  # of 760 kB: these are streamed, smaller ones read whole
    first = large.next_offsets[0]
    small = s3_day.write(records=120, objects=40, kafka_partitions=1, first_offsets={0: first}, bad_envelopes=8, seed=2)
    s3_day.pin()
    read = Once(lambda method, path: method == "GET" and path.endswith(tuple(large.keys)), body_bytes=2000)
    written = Once(lambda method, path: method == "PUT" and "partNumber=1" in path)
    stalled = threading.Event()
    cut_at = {key: number % 2 * 100 for number, key in enumerate(small.keys[::3])}

    def cut(method: str, path: str, count: int) -> int | None:
        if path.endswith(small.keys[1]) and not stalled.is_set():
            stalled.set()
            time.sleep(2)
        for key in list(cut_at):
            if method == "GET" and path.endswith(key):
                return cut_at.pop(key)
        at_byte = read(method, path, count)
        return written(method, path, count) if at_byte is None else at_byte

    arguments = s3_day.arguments("--max-rejected", "8")
    with Proxy(s3_endpoint(), cut) as proxy, s3_at(proxy.url):
        ended = run_spark_step(INGEST_DAILY, arguments, config=spark_config(tmp_path), correlation_id="run-1")

    assert ended.exit_code == 0, ended.log_tail
    assert (read.happened, written.happened, stalled.is_set(), cut_at) == (True, True, True, {})
    resumed = [asked for method, path, asked in proxy.requests if method == "GET" and asked and "jsonl.gz" in path]
    assert resumed == ["bytes=2000-"]
    records = s3_day.records()
    assert (records.total(), max(records.values())) == (1612, 1)
    rejects = s3_day.rejects()
    assert sorted(each["offset"] for each in rejects) == [first + (2 * number + 1) * 120 // 16 for number in range(8)]
    assert all(
        each["offset"] == parse_object_name(each["key"]).first_offset + each["line_number"] - 1 for each in rejects
    )
    assert unfinished_uploads(s3_day.published) == []


@pytest.mark.kill
@pytest.mark.timeout(1800)  # four JVMs, one after the other
def test_a_job_killed_while_it_publishes_again_is_never_seen_half(
    s3_day: SampleDay, spark: SparkSession, tmp_path: Path
) -> None:
    keep_versions(s3_day.published)
    before = published_before(s3_day, spark, seed=1)
    config = spark_config(tmp_path)

    # While records are written nothing has changed, and nothing is left to do.
    another_input(s3_day, seed=2)
    killed_at(a_part_is_uploaded, INGEST_DAILY, s3_day.arguments(correlation_id="again"), config=config)
    assert as_a_reader_sees(s3_day) == before
    s3_day.published.recover(s3_day.records_prefix)
    assert s3_day.records() == before

    # Once it is decided, whoever recovers finishes it.
    killed_at(it_is_decided, INGEST_DAILY, s3_day.arguments(correlation_id="again"), config=config)
    assert as_a_reader_sees(s3_day) == before
    s3_day.published.recover(s3_day.records_prefix)
    after = s3_day.records()
    assert after.total() == 500
    assert not after & before

    # Between the first new part and `_SUCCESS` there is no day; the next run makes it whole.
    another_input(s3_day, seed=3)
    killed_at(a_part_has_appeared, INGEST_DAILY, s3_day.arguments(correlation_id="third"), config=config)
    assert as_a_reader_sees(s3_day) is None
    s3_day.ingest(spark.sparkContext, correlation_id="third")
    third = s3_day.records()
    assert third.total() == 500
    assert not third & after
    assert unfinished_uploads(s3_day.published) == []


def published_before(day: SampleDay, spark: SparkSession, *, seed: int) -> Records:
    another_input(day, seed=seed)
    day.ingest(spark.sparkContext, correlation_id="before")
    return day.records()


def another_input(day: SampleDay, *, seed: int) -> None:
    """Let the same day have other objects, of other offsets, pinned."""
    day.corporate = new_s3_storage()
    day.write(records=500, objects=8, seed=seed)
    day.pin(allow_fewer_offsets=True)


def a_part_is_uploaded(method: str, path: str) -> bool:
    return method == "PUT" and "/json/daily/" in path and "partNumber=" in path


def it_is_decided(method: str, path: str) -> bool:
    return method == "PUT" and "/_publications/journals/" in path


def a_part_has_appeared(method: str, path: str) -> bool:
    return method == "POST" and "/json/daily/" in path and "uploadId=" in path
