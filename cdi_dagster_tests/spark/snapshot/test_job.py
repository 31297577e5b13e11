"""build_snapshot on a real Spark: one row an id, as a plain reference has it, of the right base, whole or absent."""

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa
import pytest

from cdi_dagster.core.snapshot_report import SnapshotReport
from cdi_dagster.core.storage_keys import (
    daily_rows_prefix,
    run_failure_key,
    snapshot_prefix,
    snapshot_report_key,
    snapshot_staging_prefix,
)
from cdi_dagster.published.snapshots import adopt_snapshot, read_snapshot_mark, snapshot_of
from cdi_dagster.spark.snapshot import job
from cdi_dagster.spark.snapshot.job import main
from cdi_dagster.storage import PreparedObject, Storage, open_storage
from cdi_dagster_tests.spark.snapshot.daily_rows import (
    PARTS,
    Row,
    history,
    orc_bytes,
    publish_history,
    publish_rows,
    read_snapshot,
    reference,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

FIRST, SECOND, THIRD = date(2023, 6, 2), date(2023, 6, 9), date(2023, 6, 16)
FIRST_DAY = date(2023, 5, 31)
ONE_DAY = timedelta(days=1)


@pytest.fixture
def published(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "[published] 1").as_uri())


def run(published: Storage, export_day: date, *more: str, run_id: str = "run-1", first: date = FIRST_DAY) -> int:
    return main(
        [
            *("--published-root", published.root, "--collection", PARTS.id, "--export-day", str(export_day)),
            *("--first-storage-day", str(first), "--correlation-id", run_id, *more),
        ]
    )


def report_of(published: Storage, export_day: date, run_id: str = "run-1") -> SnapshotReport:
    key = snapshot_report_key(snapshot_of(PARTS, export_day), run_id)
    return SnapshotReport.from_json(json.loads(published.read(key)))


def failure_of(published: Storage, export_day: date, run_id: str = "run-1") -> str:
    failure = json.loads(published.read(run_failure_key(snapshot_of(PARTS, export_day), run_id)))
    return f"{failure['failure_class']}: {failure['cause']}"


def by_type(rows: dict[tuple[str, str], tuple[str, str]]) -> dict[str, int]:
    return dict(Counter(db_type for db_type, _ in rows.values()))


def test_snapshots_of_three_weeks_hold_what_the_reference_makes_of_all_days_until_then(
    spark: "SparkSession", published: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = history(1, FIRST_DAY, THIRD - ONE_DAY, ids=700)
    publish_history(published, rows, FIRST_DAY, THIRD - ONE_DAY)
    before: date | None = None
    for export_day in (FIRST, SECOND, THIRD):
        until_then = [row for row in rows if row.day < export_day]
        # Some id_parts at a time give the same as all together.
        assert run(published, export_day, *(["--group-bytes", "25000"] if export_day == SECOND else [])) == 0
        expected = reference(until_then)
        assert read_snapshot(published, export_day) == expected
        report = report_of(published, export_day)
        assert report.base == (before.isoformat() if before else None)
        assert report.rows == by_type(expected)
        of_base = by_type(reference(row for row in rows if before and row.day < before))
        added = Counter(row.db_type for row in until_then if not before or row.day >= before)
        assert report.rows_in == dict(Counter(of_base) + added)
        mark = read_snapshot_mark(published, snapshot_of(PARTS, export_day))
        assert mark is not None
        assert mark.rows == report.rows
        assert mark.id_parts == dict(Counter(id_part for id_part, _ in expected))
        assert list(published.list(snapshot_staging_prefix(snapshot_of(PARTS, export_day)))) == []
        assert mark.sampled_rows == len(expected)
        modified = Counter(json.loads(val)["_lastModifiedDateTime"]["d_date"][:10] for _, val in expected.values())
        assert {str(day): count for day, count in mark.modified.items()} == dict(modified)
        before = export_day

    late = Row(
        id='{"id":"0alate"}', id_part="0a", db_type="DELETE", val="{}", day=FIRST_DAY, kafka_partition=0, kafka_offset=0
    )
    of_day = [row for row in rows if row.day == FIRST_DAY]
    publish_rows(published, FIRST_DAY, [*of_day, late], fingerprint="f2")
    assert run(published, FIRST, run_id="again") == 0
    assert report_of(published, FIRST, "again").stale_later == (str(SECOND), str(THIRD))
    monkeypatch.setattr(job, "FILES_OF_ONE_MACHINE", 1)  # as if they were very many
    assert run(published, THIRD, run_id="again") == 0
    rebuilt = report_of(published, THIRD, "again")
    assert rebuilt.base == str(FIRST)  # not the second, which is stale
    assert len(rebuilt.days) == 14
    assert read_snapshot(published, THIRD) == reference([*rows, late])


def test_twenty_ids_inserted_and_deleted_are_twenty_rows_all_deleted(spark: "SparkSession", published: Storage) -> None:
    rows = [
        Row(
            id=f'{{"id":"{number:02x}"}}',
            id_part=f"{number:02x}",
            db_type=db_type,
            val=f'{{"as":"{db_type}"}}',
            day=FIRST_DAY,
            kafka_partition=0,
            kafka_offset=number if db_type == "DELETE" else 100,
        )
        for number in range(20)
        for db_type in ("INSERT", "DELETE")
    ]
    publish_history(published, rows, FIRST_DAY, FIRST - ONE_DAY)
    assert run(published, FIRST) == 0
    assert set(read_snapshot(published, FIRST).values()) == {("DELETE", '{"as":"DELETE"}')}
    report = report_of(published, FIRST)
    assert (report.rows, report.rows_in) == ({"DELETE": 20}, {"DELETE": 20, "INSERT": 20})


def test_weeks_without_any_event_are_an_empty_snapshot(spark: "SparkSession", published: Storage) -> None:
    publish_history(published, [], FIRST_DAY, SECOND - ONE_DAY)
    assert [run(published, export_day) for export_day in (FIRST, SECOND)] == [0, 0]
    assert read_snapshot(published, SECOND) == {}
    assert report_of(published, SECOND).base == str(FIRST)


def test_an_old_snapshot_that_was_adopted_is_the_base(spark: "SparkSession", published: Storage) -> None:
    prefix = snapshot_prefix(snapshot_of(PARTS, FIRST))
    old = {"id": ['{"id":"0a1"}', '{"id":"0a2"}', '{"id":"0a3"}'], "db_type": ["INSERT", "DELETE", "INSERT"]}
    table = pa.table({**old, "val": ["old 1", "old 2", "old 3"], "row_number": [1, 1, 1]})
    published.write(f"{prefix}id_part=0a/part-00000.orc", orc_bytes(table))
    published.write(f"{prefix}_SUCCESS", b"")
    rows = [
        Row(
            id=f'{{"id":"0a{number}"}}',
            id_part="0a",
            db_type="INSERT",
            val="new",
            day=SECOND - ONE_DAY,
            kafka_partition=None,
            kafka_offset=None,
        )
        for number in (1, 2, 4)
    ]
    publish_history(published, rows, FIRST, SECOND - ONE_DAY)

    assert run(published, SECOND) == 1
    assert "is no mark of a snapshot" in failure_of(published, SECOND)

    adopted = adopt_snapshot(published, PARTS, FIRST, correlation_id="person", now=datetime(2023, 6, 5, tzinfo=UTC))
    assert run(published, SECOND) == 0
    assert list(read_snapshot(published, SECOND).values()) == [
        ("INSERT", "new"),
        ("DELETE", "old 2"),
        ("INSERT", "old 3"),
        ("INSERT", "new"),
    ]
    assert len(adopted.parts) == 1
    assert report_of(published, SECOND).rows_in == {"DELETE": 1, "INSERT": 5}


def test_what_is_missing_or_half_there_stops_it_by_name_and_changes_nothing(
    spark: "SparkSession", published: Storage
) -> None:
    rows = history(2, FIRST_DAY, SECOND - ONE_DAY, ids=20)
    publish_history(published, rows, FIRST_DAY, SECOND - ONE_DAY)
    assert [run(published, export_day) for export_day in (FIRST, SECOND)] == [0, 0]
    whole = read_snapshot(published, SECOND)

    of_day = daily_rows_prefix(PARTS.on(date(2023, 6, 4)))
    mark = published.read(f"{of_day}_SUCCESS")
    published.delete([f"{of_day}_SUCCESS"])
    assert run(published, SECOND) == 1
    assert "no daily rows of 1 storage days: 2023-06-04" in failure_of(published, SECOND)
    published.write(f"{of_day}_SUCCESS", mark)

    part = next(
        stored.key for stored in published.list(snapshot_prefix(snapshot_of(PARTS, FIRST))) if ".orc" in stored.key
    )
    content = published.read(part)
    published.write(part, content[:-1])
    assert run(published, SECOND) == 1
    assert f"{published.uri(part)} with {len(content)} bytes" in failure_of(published, SECOND)
    published.delete([part])
    assert run(published, SECOND) == 1
    assert "it is gone" in failure_of(published, SECOND)
    published.write(part, content)

    # Fewer rows than the mark states.
    lines = json.loads(mark)
    published.write(f"{of_day}_SUCCESS", json.dumps(lines | {"published": lines["published"] + 1}).encode())
    assert run(published, SECOND) == 1
    assert failure_of(published, SECOND).startswith("COUNTS_DO_NOT_RECONCILE")

    assert run(published, date(2023, 6, 8)) == 1
    assert read_snapshot(published, SECOND) == whole
    assert list(published.list(snapshot_staging_prefix(snapshot_of(PARTS, SECOND)))) == []


def test_a_failing_run_deletes_what_it_wrote_not_what_the_run_that_took_over_its_friday_did(
    spark: "SparkSession", published: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_history(published, history(2, FIRST_DAY, FIRST - ONE_DAY, ids=20), FIRST_DAY, FIRST - ONE_DAY)
    day = snapshot_of(PARTS, FIRST)
    staged = f"{snapshot_staging_prefix(day)}next/group=00000/id_part=00/part-0.orc"
    of_next: list[PreparedObject] = []

    def publish_late(*_: object) -> NoReturn:
        """The run has staged and prepared its files; the other one has, too, and goes on."""
        for key in (staged, staged.replace("part-0", "part-1")):
            published.write(key, b"rows")
        of_next.append(published.prepare_stored(staged, f"{snapshot_prefix(day)}id_part=00/part-0.orc", group="next"))
        raise OSError("as its machine has been frozen")

    monkeypatch.setattr(job, "publish_snapshot", publish_late)
    assert run(published, FIRST) == 1
    assert "frozen" in failure_of(published, FIRST)
    left = [stored.key for stored in published.list(snapshot_staging_prefix(day))]
    assert left == [staged.replace("part-0", "part-1")]
    published.publish(snapshot_prefix(day), of_next, b"mark", group="next")


def test_what_another_run_stages_meanwhile_is_not_published(
    spark: "SparkSession", published: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_history(published, history(2, FIRST_DAY, FIRST - ONE_DAY, ids=20), FIRST_DAY, FIRST - ONE_DAY)
    day = snapshot_of(PARTS, FIRST)
    staged = f"{snapshot_staging_prefix(day)}before/group=00000/id_part=00/part-0.orc"
    begin = job.begin_snapshot

    def begin_then_thaw(*arguments: Any) -> None:
        begin(*arguments)
        published.write(staged, b"rows")

    monkeypatch.setattr(job, "begin_snapshot", begin_then_thaw)
    assert run(published, FIRST) == 0
    assert [stored.key for stored in published.list(snapshot_staging_prefix(day))] == [staged]
