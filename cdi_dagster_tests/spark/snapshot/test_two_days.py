"""Two days of a keyed collection from raw objects to tables, by the real coalescer and jobs, in one Spark."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from cdi_dagster.coalescer.run import coalesce
from cdi_dagster.published.snapshots import require_snapshot, snapshot_of
from cdi_dagster.spark.snapshot.job import main as build_snapshot
from cdi_dagster.spark.tables.job import main as publish_tables
from cdi_dagster.table_definitions import publish_copy, with_tables
from cdi_dagster_tests.spark.ingest_support import SampleDay
from cdi_dagster_tests.spark.records.envelopes import envelope_line, message_for
from cdi_dagster_tests.spark.snapshot.daily_rows import PARTS, read_snapshot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.any_spark]

WEDNESDAY, THURSDAY, FRIDAY = date(2023, 6, 7), date(2023, 6, 8), date(2023, 6, 9)
IDS = [f"{number:02x}" * 16 for number in range(20)]


@pytest.fixture
def metastore(spark: "SparkSession") -> "Iterator[SparkSession]":
    yield spark
    spark.sql("DROP DATABASE IF EXISTS uc_lab_staging CASCADE")


def write_raw(day: SampleDay, payloads: Sequence[dict[str, Any]]) -> None:
    """Write the events as raw objects of five, as K2HB does."""
    lines = [
        envelope_line({**message_for(json.dumps(payload).encode()), "_id": payload["_id"]}) for payload in payloads
    ]
    of = day.collection.on(day.storage_day)
    for first in range(0, len(lines), 5):
        batch = lines[first : first + 5]
        key = f"{of.corporate_prefix}{of.collection.topic}_0_{first}-{first + len(batch) - 1}.jsonl.gz"
        day.corporate.write(key, gzip.compress(b"".join(line + b"\n" for line in batch)))


def test_ids_inserted_and_deleted_are_two_daily_rows_and_one_snapshot_row_each_and_rows_of_the_tables(
    file_day: SampleDay, metastore: "SparkSession"
) -> None:
    day = file_day
    day.collection = PARTS
    records = [{"_id": {"id": each}, "_version": 1} for each in IDS]
    removed = {"_version": 2, "_removedDateTime": "2023-06-08T10:00:00.000+0000"}
    daily: Counter[str] = Counter()
    for day.storage_day, payloads in ((WEDNESDAY, records), (THURSDAY, [record | removed for record in records])):
        write_raw(day, payloads)
        coalesce(day.corporate, PARTS.on(day.storage_day))
        stored = [each.key for each in day.corporate.list(PARTS.on(day.storage_day).corporate_prefix)]
        assert [key.rpartition("/")[2] for key in stored] == [f"{PARTS.topic}_0_0_19.jsonl.gz"]
        day.pin()
        day.ingest(metastore.sparkContext)
        daily.update(row[1] for row in day.rows().elements())
    assert daily == {"INSERT": 20, "DELETE": 20}

    of = ("--published-root", day.published.root, "--collection", PARTS.id, "--correlation-id", "run-2")
    assert build_snapshot([*of, "--export-day", str(FRIDAY), "--first-storage-day", str(WEDNESDAY)]) == 0
    snapshot = read_snapshot(day.published, FRIDAY)
    assert {key: db_type for key, (db_type, _) in snapshot.items()} == {
        (each[:2], f'{{"id":"{each}"}}'): "DELETE" for each in IDS
    }
    mark = require_snapshot(day.published, snapshot_of(PARTS, FRIDAY))
    assert (dict(mark.rows_in), dict(mark.rows)) == ({"DELETE": 20, "INSERT": 20}, {"DELETE": 20})

    definition = with_tables(PARTS, {}).snapshot_tables
    assert definition is not None
    uri = publish_copy(day.published, definition)
    assert publish_tables([*of, "--storage-day", str(THURSDAY), "--table-definition", uri]) == 0
    for table in definition.tables:
        assert sorted(row["id"] for row in metastore.table(table.name).select("id").collect()) == IDS
    versions = metastore.table("uc_lab_staging.src_calculator_parts").select("version", "removed_date_time").distinct()
    assert [(row["version"], row["removed_date_time"] is not None) for row in versions.collect()] == [(2, True)]
