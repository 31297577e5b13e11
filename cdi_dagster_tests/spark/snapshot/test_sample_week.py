"""A week of a keyed collection from `cdi sample` to tables, by the real coalescer and jobs, in one Spark."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from cdi_dagster.cli.app import cdi
from cdi_dagster.coalescer.run import coalesce
from cdi_dagster.core.snapshot import week_of
from cdi_dagster.published.snapshots import require_snapshot, snapshot_of
from cdi_dagster.spark.snapshot.job import main as build_snapshot
from cdi_dagster.spark.tables.job import main as publish_tables
from cdi_dagster.table_definitions import publish_copy, with_tables
from cdi_dagster_tests.spark.ingest_support import Row, SampleDay
from cdi_dagster_tests.spark.snapshot.daily_rows import PARTS, read_snapshot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.any_spark]

FRIDAY = date(2023, 6, 9)
WEEK = week_of(FRIDAY)


@pytest.fixture
def metastore(spark: "SparkSession") -> "Iterator[SparkSession]":
    yield spark
    spark.sql("DROP DATABASE IF EXISTS uc_lab_staging CASCADE")


def sample(day: SampleDay) -> None:
    """Write twenty events of the day: ten inserts, five updates, five deletes."""
    of_day = ("--collection", PARTS.id, "--storage-day", str(day.storage_day))
    numbers = ("--records", "20", "--objects", "4", "--kafka-partitions", "1")
    written = CliRunner().invoke(cdi, ["sample", "--corporate-root", day.corporate.root, *of_day, *numbers, "--json"])
    assert (written.exit_code, json.loads(written.stdout)["objects"]) == (0, 4)


def ingested_rows(day: SampleDay, spark: "SparkSession") -> "dict[str, list[Row]]":
    """Sample, coalesce and ingest the days of the week; return all daily rows by id, in the order of the days."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for day.storage_day in WEEK:
        sample(day)
        coalesce(day.corporate, PARTS.on(day.storage_day))
        stored = [each.key for each in day.corporate.list(PARTS.on(day.storage_day).corporate_prefix)]
        assert [key.rpartition("/")[2] for key in stored] == [f"{PARTS.topic}_0_0_19.jsonl.gz"]
        day.pin()
        day.ingest(spark.sparkContext)
        for row in day.rows().elements():
            rows[row[0]].append(row)
    return rows


def test_twenty_ids_inserted_and_deleted_in_a_week_are_forty_daily_rows_twenty_of_the_snapshot_and_of_each_table(
    file_day: SampleDay, metastore: "SparkSession"
) -> None:
    day = file_day
    day.collection = PARTS
    rows = ingested_rows(day, metastore)
    changes = {each: [row[1] for row in of_id] for each, of_id in rows.items()}
    deleted = {each for each, types in changes.items() if types == ["INSERT", "DELETE"]}
    updated = {each for each, types in changes.items() if types == ["INSERT", "INSERT"]}
    assert (len(deleted), len(updated), sum(map(len, changes.values()))) == (20, 20, 140)
    assert sum(len(rows[each]) for each in deleted) == 40

    of = ("--published-root", day.published.root, "--collection", PARTS.id, "--correlation-id", "run-2")
    assert build_snapshot([*of, "--export-day", str(FRIDAY), "--first-storage-day", str(WEEK[0])]) == 0
    snapshot = {key[1]: row for key, row in read_snapshot(day.published, FRIDAY).items()}
    assert snapshot.keys() == rows.keys()
    assert Counter(snapshot[each][0] for each in deleted) == {"DELETE": 20}
    assert {each: snapshot[each] for each in updated} == {each: rows[each][1][1:3] for each in updated}
    mark = require_snapshot(day.published, snapshot_of(PARTS, FRIDAY))
    assert (dict(mark.rows_in), dict(mark.rows)) == ({"DELETE": 35, "INSERT": 105}, {"DELETE": 35, "INSERT": 65})

    definition = with_tables(PARTS, {}).snapshot_tables
    assert definition is not None
    uri = publish_copy(day.published, definition)
    assert publish_tables([*of, "--storage-day", str(WEEK[-1]), "--table-definition", uri]) == 0
    ids = {each: json.loads(each)["id"] for each in rows}
    for table in definition.tables:
        shown = [row["id"] for row in metastore.table(table.name).select("id").collect()]
        assert sorted(shown) == sorted(ids.values())
    removed = metastore.table("uc_lab_staging.src_calculator_parts").where("removed_date_time IS NOT NULL")
    removed_ids = {row["id"] for row in removed.select("id").collect()}
    assert removed_ids == {ids[each] for each, (db_type, _) in snapshot.items() if db_type == "DELETE"}
    assert {ids[each] for each in deleted} < removed_ids
