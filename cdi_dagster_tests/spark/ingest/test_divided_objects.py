"""A coalesced object that several tasks read in parts gives what it gives when one reads it whole."""

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
from pyspark.sql import SparkSession

from cdi_dagster.coalescer import coalesce
from cdi_dagster.core import member_index
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.pinned_input import PinnedObject
from cdi_dagster.core.storage_keys import member_index_key
from cdi_dagster.spark.ingest import planning
from cdi_dagster.spark.ingest.member_groups import read_groups
from cdi_dagster.spark.ingest.trace import EventFate
from cdi_dagster_tests.collections import CALCULATION_PARTS
from cdi_dagster_tests.spark.ingest.test_trace import traced
from cdi_dagster_tests.spark.ingest_support import SampleDay

pytestmark = [pytest.mark.spark, pytest.mark.any_spark]


@pytest.fixture(autouse=True)
def _every_raw_object_is_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_index, "GROUP_BYTES", 1)
    monkeypatch.setattr(planning, "GROUP_BYTES", 1)


def coalesced(
    day: SampleDay, *, records: int, objects: int, kafka_partitions: int, bad_envelopes: int = 0
) -> list[str]:
    """Write a day, an object of it without a final newline and one with blank lines; coalesce it, return the keys."""
    summary = day.write(
        records=records, objects=objects, kafka_partitions=kafka_partitions, bad_envelopes=bad_envelopes
    )
    for key, change in ((summary.keys[1], bytes.rstrip), (summary.keys[2], lambda text: b" \n" + text + b"\n\r\n")):
        day.corporate.write(key, gzip.compress(change(gzip.decompress(day.corporate.read(key)))))
    assert coalesce(day.corporate, day.collection.on(day.storage_day)).succeeded
    day.pin()
    keys = [stored.key for stored in day.corporate.list(day.collection.on(day.storage_day).corporate_prefix)]
    assert len(keys) == kafka_partitions
    return keys


def outcome(day: SampleDay, spark: SparkSession, run: str, *more: str) -> tuple[Any, ...]:
    """Ingest; return all that must not depend on how the objects are read."""
    report = day.ingest(spark.sparkContext, "--max-rejected", "100%", *more, correlation_id=run)
    made = day.rows() if day.collection.is_keyed else day.records()
    rejects = sorted(day.rejects(run), key=lambda reject: (reject["key"], reject["line_number"]))
    return made, rejects, report.objects, report.reject_samples, report.db_types, report.record_bytes


def records_in_order(day: SampleDay) -> bytes:
    mark = day.mark()
    assert mark
    return b"".join(gzip.decompress(day.published.read(part["key"])) for part in mark["parts"])


def readings(day: SampleDay) -> list[bool]:
    """Whether each reading so far had objects in parts; forgotten then."""
    said = [message["text"] for message in day.reporter.said if message.get("text", "").startswith("Reading ")]
    day.reporter.said.clear()
    return ["in parts" in text for text in said]


def test_with_and_without_an_index_and_with_a_wrong_one_a_day_is_the_same(day: SampleDay, spark: SparkSession) -> None:
    (key,) = coalesced(day, records=240, objects=9, kafka_partitions=1, bad_envelopes=11)
    stored = day.corporate.head(key)
    assert stored
    index_key = member_index_key(key)
    text = day.corporate.read(index_key)
    in_parts, in_order = outcome(day, spark, "parts"), records_in_order(day)
    assert readings(day) == [True]
    assert len(in_parts[1]) == 11
    assert in_parts[2][0].blank_lines == 4  # one is what the coalescer put after the unended record
    mark = day.mark()
    assert mark
    assert len(mark["parts"]) == 6

    day.corporate.delete([index_key])
    assert outcome(day, spark, "whole") == in_parts
    assert records_in_order(day) == in_order
    assert readings(day) == [False]

    for changed, amount in (("bytes", 1), ("lines", -1), ("envelopes", 1)):
        index = json.loads(text)
        index["groups"][0][changed] -= amount  # moved to another part: the index still fits the object
        index["groups"][2][changed] += amount
        day.corporate.write(index_key, json.dumps(index).encode())
        assert outcome(day, spark, f"wrong-{changed}") == in_parts
        assert readings(day) == [True, False], changed  # begun in parts, then read whole
    day.corporate.write(index_key, text.replace(stored.etag.encode(), b"another"))
    assert outcome(day, spark, "stale") == in_parts
    assert readings(day) == [False]
    pinned = PinnedObject(key=key, size_bytes=stored.size_bytes, etag=stored.etag, version_id=None)
    for written, is_used in ((text, True), (text[:-9], False), (b"[]", False), (b"\xff", False)):
        day.corporate.write(index_key, written)
        assert bool(read_groups(day.corporate, [pinned])) is is_used


def test_rows_of_a_keyed_day_are_the_same_in_parts(file_day: SampleDay, spark: SparkSession) -> None:
    day = replace(file_day, collection=CALCULATION_PARTS)
    keys = coalesced(day, records=200, objects=9, kafka_partitions=2, bad_envelopes=5)
    in_parts = outcome(day, spark, "parts")
    assert readings(day) == [True]
    day.corporate.delete(map(member_index_key, keys))
    assert outcome(day, spark, "whole") == in_parts
    assert readings(day) == [False]


def test_a_damaged_object_is_named_as_when_it_is_read_whole(file_day: SampleDay, spark: SparkSession) -> None:
    day = file_day
    (key,) = coalesced(day, records=90, objects=6, kafka_partitions=1)
    index_key = member_index_key(key)
    index = json.loads(day.corporate.read(index_key))
    content = bytearray(day.corporate.read(key))
    content[-200] ^= 1
    index["etag"] = day.corporate.write(key, bytes(content)).etag
    day.corporate.write(index_key, json.dumps(index).encode())
    day.pin()
    with pytest.raises(CdiError) as in_parts:
        day.ingest(spark.sparkContext)
    assert readings(day) == [True, False]
    day.corporate.delete([index_key])
    with pytest.raises(CdiError) as whole:
        day.ingest(spark.sparkContext)
    assert in_parts.value.to_json() == whole.value.to_json()
    assert whole.value.failure_class is FailureClass.INPUT_INVALID


def test_an_object_that_changes_is_input_changed_in_parts_too(day: SampleDay, spark: SparkSession) -> None:
    (key,) = coalesced(day, records=90, objects=6, kafka_partitions=1)
    day.corporate.write(key, gzip.compress(b"another\n"))
    with pytest.raises(CdiError, match="was pinned with") as raised:
        day.ingest(spark.sparkContext)
    assert raised.value.failure_class is FailureClass.INPUT_CHANGED
    assert readings(day) == [True]


def test_events_of_a_divided_object_are_found_again(file_day: SampleDay, spark: SparkSession) -> None:
    day = file_day
    coalesced(day, records=60, objects=8, kafka_partitions=1, bad_envelopes=3)
    day.ingest(spark.sparkContext, "--max-rejected", "100%")
    assert readings(day) == [True]
    events = [traced(day, 0, offset) for offset in range(0, 60, 2)]
    assert 0 < [event.fate for event in events].count(EventFate.REJECT) < 4
    lines = [
        gzip.decompress(day.published.read(event.part_key)).splitlines()[(event.part_line or 0) - 1]
        for event in events
        if event.part_key
    ]
    mark = day.mark()
    assert mark
    assert {event.part_key for event in events if event.part_key} == {part["key"] for part in mark["parts"]}
    assert len(mark["parts"]) > 3
    rejected = {reject["offset"] for reject in day.rejects()}
    offsets = [offset for offset in range(60) if offset not in rejected]
    every_record = dict(zip(offsets, records_in_order(day).splitlines(), strict=True))
    assert lines == [every_record[event.offset] for event in events if event.part_key]
