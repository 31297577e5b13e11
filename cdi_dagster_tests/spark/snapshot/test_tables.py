"""Tables of a snapshot on a real Spark and metastore: replaced whole, never absent, each alone."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from cdi_dagster.core.snapshot import SnapshotInput
from cdi_dagster.core.storage_keys import run_failure_key, snapshot_prefix, tables_report_key
from cdi_dagster.core.tables_report import TablesReport
from cdi_dagster.published.snapshot_mark import SnapshotMark, SnapshotPart
from cdi_dagster.published.snapshots import snapshot_of
from cdi_dagster.spark.tables import partition
from cdi_dagster.spark.tables import publish as publishing
from cdi_dagster.spark.tables.job import main
from cdi_dagster.spark.tables.locations import attempt_prefix
from cdi_dagster.storage import ObjectMissingError, Storage, open_storage
from cdi_dagster.table_definitions import read_table_definition
from cdi_dagster_tests.spark.snapshot.daily_rows import PARTS, orc_bytes

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

FRIDAY, NEXT = date(2023, 6, 9), date(2023, 6, 16)
ONE, OTHER = "uc_lab_test.parts", "uc_lab_test.housing"


@pytest.fixture
def metastore(spark: "SparkSession") -> "Iterator[SparkSession]":
    yield spark
    spark.sql("DROP DATABASE IF EXISTS uc_lab_test CASCADE")


@pytest.fixture
def published(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "published").as_uri())


@pytest.fixture
def definition(tmp_path: Path) -> str:
    """Two tables that have a column of one name and of different paths and types."""
    tables = [
        {"name": ONE, "kind": "snapshot", "columns": [{"name": "n", "path": ["n"], "type": "int"}]},
        {"name": OTHER, "kind": "snapshot", "columns": [{"name": "n", "path": ["housing", "n"], "type": "string"}]},
    ]
    path = tmp_path / "definition.json"
    path.write_text(json.dumps({"format_version": 2, "tables": tables}))
    return str(path)


def publish_snapshot_of(storage: Storage, export_day: date, *vals: str) -> None:
    day = snapshot_of(PARTS, export_day)
    parts = []
    for number, val in enumerate(vals):
        key = f"{snapshot_prefix(day)}id_part=0{number % 2}/part-{number:05d}.orc"
        table = pa.table({"id": [f"{number}"], "db_type": ["DELETE" if number else "INSERT"], "val": [val]})
        parts.append(SnapshotPart(key=key, size_bytes=storage.write(key, orc_bytes(table)).size_bytes))
    used = SnapshotInput(base=None, days={day.storage_day: "rows"})
    mark = SnapshotMark(
        correlation_id="snapshot",
        collection_id=PARTS.id,
        export_day=export_day,
        fingerprint=used.fingerprint,
        made_from=used,
        rows_in={},
        rows={"INSERT": min(len(vals), 1), "DELETE": max(len(vals) - 1, 0)},
        id_parts={},
        parts=tuple(parts),
        published_at=datetime(2023, 6, 9, tzinfo=UTC),
    )
    storage.write(f"{snapshot_prefix(day)}_SUCCESS", mark.to_bytes())


def publish(storage: Storage, export_day: date, definition: str, *more: str, run_id: str = "run") -> int:
    return main(
        [
            *("--published-root", storage.root, "--collection", PARTS.id, "--table-definition", definition),
            *("--storage-day", str(snapshot_of(PARTS, export_day).storage_day), "--correlation-id", run_id, *more),
        ]
    )


def values(spark: "SparkSession", table: str) -> list[object]:
    return sorted((row["n"] for row in spark.table(table).collect()), key=str)


def folders(storage: Storage, table: str) -> set[str]:
    prefix = f"corporate_data_ingestion/tables/{table.replace('.', '/')}/"
    return {stored.key.removeprefix(prefix).partition("/")[0] for stored in storage.list(prefix)}


def test_each_table_is_replaced_whole_and_each_can_be_published_alone(
    metastore: "SparkSession", published: Storage, definition: str
) -> None:
    publish_snapshot_of(published, FRIDAY, '{"housing":{"n":"x"},"n":1}', '{"n":"7"}', '{"n":"no number"}')
    assert publish(published, FRIDAY, definition) == 0
    assert values(metastore, ONE) == [1, 7, None]
    assert values(metastore, OTHER) == [None, None, "x"]
    report_key = tables_report_key(snapshot_of(PARTS, FRIDAY), "run")
    report = TablesReport.from_json(json.loads(published.read(report_key)))
    assert [(table.name, table.rows, dict(table.unparsable)) for table in report.tables] == [
        (ONE, 3, {"n": 1}),
        (OTHER, 3, {}),
    ]

    # A reader that had begun goes on with the files of before: they stay until the publication after the next.
    before = metastore.table(ONE)
    publish_snapshot_of(published, NEXT, '{"housing":{"n":"y"},"n":2}')
    assert publish(published, NEXT, definition, "--tables", "parts", run_id="alone") == 0
    assert (values(metastore, ONE), values(metastore, OTHER)) == ([2], [None, None, "x"])
    assert before.count() == 3
    assert len(folders(published, ONE)) == 2
    assert publish(published, NEXT, definition, run_id="both") == 0
    assert (values(metastore, ONE), values(metastore, OTHER)) == ([2], ["y"])
    assert len(folders(published, ONE)) == 2

    # What is no snapshot, or not whole, changes nothing.
    publish_snapshot_of(published, FRIDAY, '{"n":3}', '{"n":4}')
    part = f"{snapshot_prefix(snapshot_of(PARTS, FRIDAY))}id_part=00/part-00000.orc"
    published.delete([part])
    assert publish(published, FRIDAY, definition, run_id="gone") == 1
    failure = json.loads(published.read(run_failure_key(snapshot_of(PARTS, FRIDAY), "gone")))
    assert part in failure["cause"]
    assert publish(published, date(2023, 6, 23), definition, run_id="none") == 1
    assert values(metastore, ONE) == [2]


def test_what_a_killed_run_had_prepared_of_another_friday_is_discarded_by_the_next(
    metastore: "SparkSession", published: Storage, definition: str
) -> None:
    publish_snapshot_of(published, FRIDAY, '{"n":1}')
    table = read_table_definition(definition).named(("parts",))[0]
    prefix = attempt_prefix(table, NEXT, "20230616T040000Z-0123abcd")
    with published.upload(f"{prefix}part-0.orc", group="killed") as upload:
        upload.write(b"decrypted rows")
        prepared = upload.prepare()
    assert publish(published, FRIDAY, definition, "--tables", "parts") == 0
    with pytest.raises(ObjectMissingError):
        published.publish(prefix, [prepared], b"mark", group="killed")
    assert values(metastore, ONE) == [1]


def test_an_attempt_that_another_run_publishes_meanwhile_is_not_cleaned_up(
    metastore: "SparkSession", published: Storage, definition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_snapshot_of(published, FRIDAY, '{"n":1}')
    publish_snapshot_of(published, NEXT, '{"n":2}')
    assert publish(published, FRIDAY, definition, "--tables", "parts", run_id="before") == 0
    publish_attempt, unmarked = publishing.publish_attempt, partition._unmarked
    held: list[tuple[Any, ...]] = []

    def other_between(*arguments: Any) -> None:
        """The run of the next Friday has stored its attempt; before it publishes that, this Friday's run does all."""
        if not held:
            held.append(arguments)
            assert publish(published, FRIDAY, definition, "--tables", "parts", run_id="other") == 0
        else:
            publish_attempt(*arguments)

    def published_meanwhile(*arguments: Any) -> set[str]:
        found = unmarked(*arguments)
        if held[0]:
            arguments, held[0] = held[0], ()
            publish_attempt(*arguments)
        return found

    monkeypatch.setattr(publishing, "publish_attempt", other_between)
    monkeypatch.setattr(partition, "_unmarked", published_meanwhile)
    assert publish(published, NEXT, definition, "--tables", "parts") == 0
    metastore.catalog.refreshTable(ONE)
    assert values(metastore, ONE) == [2]


def test_an_empty_snapshot_is_an_empty_table(metastore: "SparkSession", published: Storage, definition: str) -> None:
    publish_snapshot_of(published, FRIDAY)
    assert publish(published, FRIDAY, definition, "--tables", "parts") == 0
    assert values(metastore, ONE) == []


def test_a_partitioned_table_of_that_name_is_refused(
    metastore: "SparkSession", published: Storage, definition: str
) -> None:
    metastore.sql("CREATE DATABASE uc_lab_test")
    metastore.sql(f"CREATE TABLE {ONE} (n INT) PARTITIONED BY (date_str STRING) STORED AS ORC")
    publish_snapshot_of(published, FRIDAY, '{"n":1}')
    assert publish(published, FRIDAY, definition, "--tables", "parts") == 1
    failure = json.loads(published.read(run_failure_key(snapshot_of(PARTS, FRIDAY), "run")))
    assert "is partitioned by date_str, not by nothing" in failure["cause"]
