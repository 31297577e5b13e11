"""Every event of a day is traced to its line, and to the very line of the part that holds its record."""

import gzip
from typing import TYPE_CHECKING

import pytest

from cdi_dagster.ingestion.pinning import read_pinned_input
from cdi_dagster.published.read import read_publication
from cdi_dagster.spark.ingest.trace import EventFate, EventTrace, TracedRun, trace_event
from cdi_dagster.spark.records.engine import RecordEngine
from cdi_dagster.storage import Roots
from cdi_dagster_tests.gate.quick_ingestion import UnwrappedKeys
from cdi_dagster_tests.spark.ingest_support import SampleDay

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def traced(day: SampleDay, kafka_partition: int, offset: int) -> EventTrace:
    of_day = day.collection.on(day.storage_day)
    publication = read_publication(day.published, of_day)
    pinned = publication.pinned if publication else read_pinned_input(day.published, of_day)
    assert pinned
    run = TracedRun(
        pinned=pinned,
        report=publication.report if publication else None,
        mark=publication.mark if publication else None,
    )
    roots = Roots(corporate=day.corporate, published=day.published)
    return trace_event(roots, of_day, run, kafka_partition, offset)


@pytest.mark.spark
@pytest.mark.any_spark
def test_every_event_of_a_published_day_is_found_again(day: SampleDay, spark: "SparkSession") -> None:
    summary = day.write(records=80, objects=8, bad_envelopes=9)
    day.pin()
    report = day.ingest(spark.sparkContext, "--max-rejected", "9")
    assert report.parts > 1
    engine = RecordEngine(day.collection, UnwrappedKeys())
    kept = {(reject["key"], reject["line_number"]): reject for reject in day.rejects()}
    fates = []
    for kafka_partition, (first, last) in summary.offsets.items():
        for offset in range(first, last + 1):
            event = traced(day, kafka_partition, offset)
            fates.append(event.fate)
            assert event.object_key
            assert event.lines
            reject = kept.pop((event.object_key, event.lines[0]), None)
            if reject:
                assert (event.reason, event.detail) == (reject["reason"], reject["detail"])
                assert reject["offset"] == offset
                continue
            assert event.part_key
            assert event.part_line
            stored = gzip.decompress(day.corporate.read(event.object_key)).splitlines()
            result = engine.process([stored[event.lines[0] - 1]])
            part = gzip.decompress(day.published.read(event.part_key)).splitlines(keepends=True)
            assert part[event.part_line - 1] == result.records
    assert (fates.count(EventFate.RECORD), fates.count(EventFate.REJECT)) == (71, 9)


def test_an_event_of_a_pinned_day_has_its_line_and_one_of_another_day_is_sent_there(day: SampleDay) -> None:
    summary = day.write(records=40, objects=4, kafka_partitions=1)
    day.pin()
    first, last = summary.offsets[0]
    event = traced(day, 0, first + 1)
    assert (event.fate, event.lines, event.part_key) == (EventFate.NOT_READ, (2, 2), None)
    beyond = traced(day, 0, last + 1)
    assert beyond.fate is EventFate.NOT_THERE
    assert "look at a later storage day" in beyond.text
    assert "no object of" in traced(day, 7, 1).text


def test_the_line_of_an_event_in_an_object_with_holes_is_a_range(day: SampleDay) -> None:
    name = f"{day.collection.on(day.storage_day).corporate_prefix}{day.collection.topic}_0_0-9.jsonl.gz"
    day.corporate.write(name, gzip.compress(b"{}\n" * 8))
    day.pin()
    assert traced(day, 0, 5).lines == (4, 6)
    assert traced(day, 0, 0).lines == (1, 1)
    assert traced(day, 0, 9).lines == (8, 8)
