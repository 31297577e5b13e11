"""A day of a keyed collection, with a real Spark: every event is one row, in the folder of its id; whole or absent."""

import gzip
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.object_names import parse_object_name
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.spark.ingest import rows as ingest_rows
from cdi_dagster.spark.ingest.rows import MOST_PARTITIONS, RowFiles, partition_of, plan_partitions
from cdi_dagster.spark.ingest.trace import EventFate, TracedRun, trace_event
from cdi_dagster.storage import open_storage
from cdi_dagster.storage.roots import Roots
from cdi_dagster_tests.collections import CALCULATION_PARTS
from cdi_dagster_tests.spark.ingest.test_job_kill import kill_at
from cdi_dagster_tests.spark.ingest.test_replay import adds_up, replay
from cdi_dagster_tests.spark.ingest_support import Row, SampleDay
from cdi_dagster_tests.spark.records import reference
from cdi_dagster_tests.spark.records.envelopes import envelope_line, message_for
from cdi_dagster_tests.spark.records.vectors import unwrapped
from cdi_dagster_tests.spark.worker_processes import staged_files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def day(day: SampleDay) -> SampleDay:
    day.collection = CALCULATION_PARTS
    return day


@pytest.fixture
def file_day(file_day: SampleDay) -> SampleDay:
    file_day.collection = CALCULATION_PARTS
    return file_day


def expected_rows(day: SampleDay, keys: Iterable[str]) -> "Counter[Row]":
    """The rows of stored objects by the reference, which shares no code with the job."""
    found: Counter[Row] = Counter()
    for key in keys:
        name = parse_object_name(key)
        lines = gzip.decompress(day.corporate.read(key)).splitlines()
        for offset, line in enumerate(lines, start=name.first_offset):
            row, _ = reference.row_of(line, lambda _, key: unwrapped(key))
            if row:
                found[(row[0], row[2], row[3].decode(), name.kafka_partition, offset)] += 1
    return found


def write_events(day: SampleDay, events: Iterable[tuple[Any, dict[str, Any]]]) -> str:
    """Write one object of (`_id`, payload); return its key."""
    lines = [envelope_line({**message_for(json.dumps(payload).encode()), "_id": row_id}) for row_id, payload in events]
    key = f"{day.collection.on(day.storage_day).corporate_prefix}{day.collection.topic}_4_70-{69 + len(lines)}.jsonl.gz"
    day.corporate.write(key, gzip.compress(b"".join(line + b"\n" for line in lines)))
    return key


@pytest.mark.spark
def test_every_event_of_a_day_is_one_row_in_the_folder_of_its_id(file_day: SampleDay, spark: "SparkSession") -> None:
    day = file_day
    summary = day.write(records=400, objects=7, bad_envelopes=4)
    day.pin()
    with pytest.raises(CdiError) as raised:
        day.ingest(spark.sparkContext)
    assert raised.value.failure_class is FailureClass.RECORDS_REJECTED
    assert day.rows().total() == 0

    report = day.ingest(spark.sparkContext, "--max-rejected", "4", correlation_id="run-2")

    rows = day.rows()
    assert rows == expected_rows(day, summary.keys)
    assert (report.read, report.published, report.rejected) == (400, 396, 4)
    assert len(day.rejects("run-2")) == 4
    mark = day.mark()
    assert mark is not None
    assert report.db_types == mark["db_types"]
    assert min(mark["db_types"].values()) > 20
    assert mark["record_bytes"] == sum(len(row[2].encode()) + 1 for row in rows.elements())
    assert report.parts == len({json.loads(row[0])["id"][:2] for row in rows})
    assert adds_up(day, "run-2") == []


@pytest.mark.spark
def test_nothing_is_dropped_and_whatever_an_id_begins_with_has_its_folder(
    file_day: SampleDay, spark: "SparkSession"
) -> None:
    same = {"type": "CALC", "id": "00aa"}
    date = "2023-06-02T10:00:00.123Z"
    events: list[tuple[Any, dict[str, Any]]] = [
        (same, {"n": 1}),
        ({"id": "a/b%"}, {"n": 2}),
        (same, {"n": 3, "_removedDateTime": date}),
        ({"id": "é€x"}, {"n": "é"}),
        (same, {"n": 4}),
        ({"id": "AB"}, {"_archivedDateTime": date}),
        ({"id": "\x00\n"}, {}),
    ]
    key = write_events(file_day, events)
    file_day.pin()
    file_day.ingest(spark.sparkContext)
    rows = file_day.rows()
    assert rows == expected_rows(file_day, [key])
    assert [row[1:2] + row[3:] for row in sorted(rows) if "CALC" in row[0]] == [
        ("DELETE", 4, 72),
        ("INSERT", 4, 70),
        ("INSERT", 4, 74),
    ]
    folders = {name.partition("/")[0] for name in file_day.published_keys()} - {"_SUCCESS"}
    assert folders == {"id_part=00", "id_part=a%2F", "id_part=é€", "id_part=AB", "id_part=%00%0A"}
    read = spark.read.schema("id string, db_type string, val string, id_part string").orc(
        file_day.published.uri(file_day.records_prefix)
    )
    found = {(row["id"], row["id_part"]) for row in read.where("id_part <> '00'").collect()}
    assert found == {(row[0], json.loads(row[0])["id"][:2]) for row in rows if "CALC" not in row[0]}


@pytest.mark.spark
def test_a_day_published_again_leaves_no_folder_of_an_earlier_try(day: SampleDay, spark: "SparkSession") -> None:
    write_events(day, [({"id": f"{number:02x}"}, {}) for number in range(5)])
    day.pin()
    day.ingest(spark.sparkContext)
    assert len(day.published_keys()) == 6
    key = write_events(day, [({"id": f"{number:02x}"}, {}) for number in range(3, 8)])
    day.pin()
    day.ingest(spark.sparkContext, correlation_id="run-2")
    assert day.rows() == expected_rows(day, [key])
    folders = [name.partition("/")[0] for name in day.published_keys()]
    assert folders == ["_SUCCESS", *(f"id_part=0{number}" for number in range(3, 8))]


@pytest.mark.spark
def test_a_restored_key_brings_its_rows_back_beside_the_others(file_day: SampleDay, spark: "SparkSession") -> None:
    day = file_day
    summary = day.write(records=60, objects=3)
    day.pin()
    with DevelopmentKeyService() as service:
        service.forget("cloudhsm:1,2")
        day.dks_url = service.url
        day.ingest(spark.sparkContext, "--max-rejected", "100%")
        assert day.mark() is not None
        assert day.rows().total() == 0
        service.restore("cloudhsm:1,2")
        result = replay(day, "replayed")
    assert result.recovered == 60
    assert day.rows() == expected_rows(day, summary.keys)
    assert adds_up(day, "replayed") == []

    twice = replay(day, "again")
    assert twice.replayed == 0
    where = Roots(corporate=day.corporate, published=day.published)
    run = TracedRun(pinned=_pinned(day), report=result.report, mark=_mark(day))
    traced = trace_event(where, day.collection.on(day.storage_day), run, 0, 3)
    assert (traced.fate, traced.part_key) == (EventFate.RECORD, None)
    assert "by id_part" in traced.text


def _pinned(day: SampleDay) -> Any:
    from cdi_dagster.published.read import read_published_input

    return read_published_input(day.published, day.collection.on(day.storage_day))


def _mark(day: SampleDay) -> Any:
    from cdi_dagster.published.read import read_mark

    return read_mark(day.published, day.collection.on(day.storage_day))


@pytest.mark.spark
@pytest.mark.kill
def test_a_killed_job_leaves_the_rows_as_before_and_no_plaintext_on_disk(
    file_day: SampleDay, spark: "SparkSession", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, before_key = file_day, write_events(file_day, [({"id": f"{number:02x}"}, {}) for number in range(20)])
    day.pin()
    day.ingest(spark.sparkContext, correlation_id="before")
    before = expected_rows(day, [before_key])
    shutil.rmtree(tmp_path / "corporate")
    summary = day.write(records=200, objects=8)
    after = expected_rows(day, summary.keys)
    day.pin(allow_fewer_offsets=True)
    disk = tmp_path / "local disk"
    disk.mkdir()
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(disk))
    for pause in (0, 0.02):
        kill_at("Publishing", pause, day, tmp_path)
        assert day.rows() in (before, after)
    shuffled = [path for path in disk.rglob("shuffle_*.data") if path.stat().st_size]
    assert shuffled
    assert not [path for path in shuffled if b"createdDateTime" in path.read_bytes()]

    day.ingest(spark.sparkContext, correlation_id="again")
    assert day.rows() == after
    assert staged_files(day) == []


def test_more_rows_than_a_worker_may_hold_become_more_files_each_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_rows, "MOST_BUFFERED_BYTES", 100_000)
    storage = open_storage(tmp_path.as_uri())
    files = RowFiles(storage, "day/", publication_id="p", group="g")
    count = 2_000
    for number in range(count):
        id_part = "aa" if number % 3 else "bb"
        row_id = json.dumps({"id": id_part + os.urandom(4).hex()})
        files.add((row_id, 1, number, id_part, "DELETE" if number % 2 else "INSERT", b'{"a":"%d"}' % number))
    written = files.finish()
    storage.publish("day/", [part.prepared for part in written], b"{}", group="g")
    assert sum(part.lines for part in written) == count
    assert sum(part.deletes for part in written) == count // 2
    by_folder = Counter(part.prepared.key.rpartition("/")[0] for part in written)
    assert min(by_folder.values()) > 1
    from pyarrow import orc

    for part in written:
        ids = orc.ORCFile(tmp_path / part.prepared.key).read(columns=["id"])["id"].to_pylist()
        assert ids == sorted(ids)


def test_ids_spread_evenly_over_as_many_tasks_as_the_day_is_large() -> None:
    assert plan_partitions(0, cores=8) == 1
    assert plan_partitions(10_000_000, cores=2) == 3
    assert plan_partitions(10**12, cores=1_440) == MOST_PARTITIONS
    for partitions in (1, 7, 64, 256):
        loads = Counter(partition_of(f"{number:02x}", partitions) for number in range(256))
        assert max(loads.values()) - min(loads.values(), default=0) <= 1
        assert 0 <= partition_of("é/", partitions) < partitions
        assert 0 <= partition_of("-1", partitions) < partitions
