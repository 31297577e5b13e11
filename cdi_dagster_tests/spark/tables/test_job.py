"""publish_tables on a real Spark and metastore: what is published, and what a failure or a kill leaves."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.spark_jobs import PUBLISH_TABLES
from cdi_dagster.core.storage_keys import daily_records_prefix, run_prefix, tables_report_key
from cdi_dagster.core.tables_report import TablesReport
from cdi_dagster.local_spark.metastore import local_metastore_conf, local_metastore_lock
from cdi_dagster.local_spark.spark_process import SparkExit, run_spark_step
from cdi_dagster.local_spark.spark_submit import SparkProcessConfig
from cdi_dagster.spark.tables import job, publish
from cdi_dagster.spark.tables.job import main
from cdi_dagster.spark.tables.locations import attempt_prefix, partition_prefix
from cdi_dagster.storage import ObjectMissingError, Storage, open_storage
from cdi_dagster.table_definitions import read_table_definition
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.spark.tables.daily_records import (
    DAY,
    EXPORT_DAY,
    MANAGED,
    RAW,
    REDACTED,
    SECURED,
    publish_records,
    record,
)
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

NEXT_DAY = date(2023, 3, 27)
SHIPPED = files("cdi_dagster.table_definitions").joinpath("business_audit.json")
TABLES = {table.name: table for table in read_table_definition(str(SHIPPED)).tables}
AWKWARD = (
    '{"big":123456789012345678901234567890,"nan":NaN,"e":1e+22,"z":-0.0}',
    '{"text":"\u2028 \x85 \\r \\u001f 山田 \U0001f600"}',
    '{ "spaces" : "kept" }',
    '{"lone cr":"\r"}',
)


def forget_tables(spark: "SparkSession") -> None:
    for database in ("uc", "uc_dw_auditlog"):
        spark.sql(f"DROP DATABASE IF EXISTS {database} CASCADE")


@pytest.fixture
def metastore(spark: "SparkSession") -> "Iterator[SparkSession]":
    yield spark
    forget_tables(spark)


@pytest.fixture
def published(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "published").as_uri())


@pytest.fixture
def narrow(tmp_path: Path) -> str:
    """A definition with one column: quicker than the shipped one."""
    return config(tmp_path, column("audit_id", "AUDIT_ID"))


def arguments(published: Storage, *more: str, correlation_id: str = "c1", day: date = DAY) -> list[str]:
    where = ["--published-root", published.root, "--collection", AUDIT.id, "--storage-day", str(day)]
    # The last one given counts.
    return [*where, "--correlation-id", correlation_id, "--table-definition", str(SHIPPED), *more]


def run(published: Storage, *more: str, correlation_id: str = "c1", day: date = DAY) -> int:
    return main(arguments(published, *more, correlation_id=correlation_id, day=day))


def report_of(published: Storage, correlation_id: str = "c1", day: date = DAY) -> TablesReport:
    return TablesReport.from_json(json.loads(published.read(tables_report_key(AUDIT.on(day), correlation_id))))


def failure_of(published: Storage, correlation_id: str = "c1") -> CdiError:
    return CdiError.from_json(json.loads(published.read(f"{run_prefix(AUDIT.on(DAY), correlation_id)}failure.json")))


def raw_values(spark: "SparkSession", export_day: str = EXPORT_DAY) -> list[str]:
    rows = spark.sql(f"SELECT val FROM {RAW} WHERE date_str = '{export_day}'").collect()
    return sorted(row["val"] for row in rows)


def attempts(published: Storage, table: str) -> list[str]:
    prefix = partition_prefix(TABLES[table], date.fromisoformat(EXPORT_DAY))
    return sorted({stored.key.removeprefix(prefix).split("/")[0] for stored in published.list(prefix)})


def config(tmp_path: Path, *columns: dict[str, Any], over: str = "view") -> str:
    kinds = {RAW: "raw", MANAGED: "managed", SECURED: over, REDACTED: over}
    tables = [{"name": name, "kind": kind} for name, kind in kinds.items()]
    path = tmp_path / "tables.json"
    path.write_text(json.dumps({"format_version": 2, "tables": tables, "columns": columns}))
    return str(path)


def column(name: str, *path: str, type: str = "string", redacted: str = "keep") -> dict[str, Any]:
    shown = {"auditlog_sec_v": "keep", "auditlog_red_v": redacted}
    return {"name": name, "path": list(path), "type": type, "shown": shown}


class TestOneDayWithTheShippedDefinition:
    """Published once; each test looks at a part of it."""

    @pytest.fixture(scope="class")
    @classmethod
    def day(cls, spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
        # A folder whose name Hadoop would take for a pattern, and that a URI must encode.
        storage = open_storage((tmp_path_factory.mktemp("day") / "published [main] 1").as_uri())
        odd = record(2, amountPence="12 pounds", TIME_STAMP="", claimant="not an object")
        publish_records(storage, [record(1), odd, *AWKWARD[:2]], AWKWARD[2:], fingerprint="abc")
        assert run(storage) == 0
        yield storage
        forget_tables(spark)

    def test_every_record_is_in_the_raw_table_exactly(self, spark: "SparkSession", day: Storage) -> None:
        values = raw_values(spark)
        assert len(values) == 6
        assert {record(1), *AWKWARD} < set(values)

    def test_the_managed_table_has_the_columns_in_their_types(self, spark: "SparkSession", day: Storage) -> None:
        row = spark.table(MANAGED).where("audit_id = 'id-1'").collect()[0].asDict()
        expected = {
            "audit_id": "id-1",
            "audit_event": "PaymentViewed",
            "time_stamp": datetime(2023, 3, 26, 23, 59, 59, 999000, tzinfo=UTC).astimezone().replace(tzinfo=None),
            "claimant_first_name": "Zoë",
            "claimant_date_of_birth": date(1980, 2, 29),
            "claimant_declared": True,
            "user_staff_number": 12345678,
            "amount_pence": 1,
            "changes": '[{"field":"d_status","from":null}]',
            "notes": None,
            "date_str": EXPORT_DAY,
        }
        assert {name: row[name] for name in expected} == expected

    def test_the_secured_view_shows_what_the_redacted_view_hides(self, spark: "SparkSession", day: Storage) -> None:
        secured, redacted = (
            spark.table(view).where("audit_id = 'id-1'").collect()[0].asDict() for view in (SECURED, REDACTED)
        )
        assert (secured["claimant_nino"], secured["user_staff_number"]) == ("QQ123456C", 12345678)
        assert (redacted["claimant_nino"], redacted["notes"]) == ("REDACTED", None)
        assert len(redacted["user_staff_number"]) == 64
        assert not {"claimant_date_of_birth", "claimant_address_line1"} & set(redacted)
        for hidden in ("QQ123456C", "Zoë", "12345678", "1980"):
            assert hidden not in str(redacted)

    def test_the_report_has_figures_of_every_table(self, day: Storage) -> None:
        report = report_of(day)
        assert (report.fingerprint, report.records, report.export_day) == ("abc", 6, EXPORT_DAY)
        assert [(table.kind, table.name, table.rows) for table in report.tables] == [
            ("raw", RAW, 6),
            ("managed", MANAGED, 6),
            ("view", SECURED, 6),
            ("view", REDACTED, 6),
        ]
        assert report.slow_records == 2  # NaN, and a carriage return that is not escaped
        raw, managed = report.tables[:2]
        assert raw.location is not None
        prefix = unquote(raw.location.removeprefix(f"{day.root}/"))
        stored = [found.size_bytes for found in day.list(prefix) if found.key.endswith(".zlib.orc")]
        assert (raw.files, raw.stored_bytes) == (len(stored), sum(stored))
        assert managed.unparsable == {"amount_pence": 1}


def test_publishing_again_replaces_the_partition_and_keeps_the_attempt_before(
    metastore: "SparkSession", published: Storage, narrow: str
) -> None:
    for number in (1, 2, 3):
        publish_records(published, [record(number)], fingerprint=f"f{number}")
        assert run(published, "--table-definition", narrow, correlation_id=f"c{number}") == 0
        assert raw_values(metastore) == [record(number)]
        assert [row["audit_id"] for row in metastore.table(REDACTED).collect()] == [f"id-{number}"]

    assert len(attempts(published, RAW)) == len(attempts(published, MANAGED)) == 2
    assert [table.action for table in report_of(published, "c3").tables[2:]] == ["unchanged", "unchanged"]


def test_a_reader_that_planned_before_a_publication_still_reads_what_it_planned(
    metastore: "SparkSession", published: Storage
) -> None:
    publish_records(published, [record(1)])
    assert run(published, "--tables", "auditlog_raw") == 0
    planned = metastore.table(RAW).rdd  # Spark has listed the files
    assert planned.getNumPartitions() == 1
    publish_records(published, [record(2)], fingerprint="f2")
    assert run(published, "--tables", "auditlog_raw", correlation_id="c2") == 0

    assert [row["val"] for row in planned.collect()] == [record(1)]
    assert raw_values(metastore) == [record(2)]


def test_an_empty_day_is_an_empty_partition_beside_the_others(
    metastore: "SparkSession", published: Storage, narrow: str
) -> None:
    publish_records(published)
    publish_records(published, [record(2)], day=NEXT_DAY)

    assert run(published, "--table-definition", narrow) == 0
    assert run(published, "--table-definition", narrow, day=NEXT_DAY) == 0
    assert [row[0] for row in metastore.sql(f"SHOW PARTITIONS {MANAGED}").collect()] == [
        f"date_str={EXPORT_DAY}",
        "date_str=2023-03-28",
    ]
    assert raw_values(metastore) == []
    assert raw_values(metastore, "2023-03-28") == [record(2)]
    assert [table.rows for table in report_of(published).tables] == [0, 0, 0, 0]


def test_the_environment_does_not_reach_the_metastore(
    metastore: "SparkSession", published: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAME_OF_A_SECRET", "its value")
    comment = "of ${env:NAME_OF_A_SECRET} and ${env:HOME} and ${system:user.dir}"
    publish_records(published, [record(1)])
    definition = config(tmp_path, {**column("audit_id", "AUDIT_ID"), "comment": comment})
    assert run(published, "--table-definition", definition) == 0

    comments = {row["col_name"]: row["comment"] for row in metastore.sql(f"DESCRIBE TABLE {MANAGED}").collect()}
    assert comments["audit_id"] == comment


def test_every_golden_value_reaches_a_reader_of_the_table(
    metastore: "SparkSession", published: Storage, tmp_path: Path
) -> None:
    path = Path(__file__).parents[2] / "vectors" / "table_values.jsonl"
    vectors = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    vectors = [vector for vector in vectors if all(vector["path"])]
    columns = [column(f"c{i}", *vector["path"], type=vector["type"]) for i, vector in enumerate(vectors)]
    publish_records(published, [vector["record"] for vector in vectors])
    assert run(published, "--table-definition", config(tmp_path, *columns)) == 0

    rows = metastore.table(SECURED).selectExpr(*(f"CAST(c{i} AS STRING)" for i in range(len(vectors)))).collect()
    for i, vector in enumerate(vectors):  # one part is one file, in the order of the records
        expected = vector["expected"]
        if vector["type"] == "timestamp" and expected:
            expected = expected.replace("T", " ").rstrip("0").rstrip(".")
        elif expected is not None and vector["type"] != "string":
            expected = str(expected).lower() if vector["type"] == "boolean" else str(expected)
        assert rows[i][i] == expected, vector["name"]
    assert report_of(published).tables[1].unparsable


def test_a_failed_run_leaves_every_table_as_it_was(metastore: "SparkSession", published: Storage, narrow: str) -> None:
    publish_records(published, [record(1)])
    assert run(published, "--table-definition", narrow) == 0
    publish_records(published, [record(2), record(3)], fingerprint="f2", published=3)

    assert (
        run(published, "--table-definition", narrow, "--tables", "auditlog_managed,auditlog_red_v", correlation_id="c2")
        == 1
    )
    failure = failure_of(published, "c2")
    assert failure.failure_class is FailureClass.COUNTS_DO_NOT_RECONCILE
    assert "would hold 2 rows" in failure.cause
    assert raw_values(metastore) == [record(1)]
    assert [row["audit_id"] for row in metastore.table(REDACTED).collect()] == ["id-1"]


def test_what_a_killed_run_had_prepared_is_discarded_by_the_next(
    metastore: "SparkSession", published: Storage, narrow: str
) -> None:
    publish_records(published, [record(1)], fingerprint="abc")
    prefix = attempt_prefix(TABLES[RAW], date.fromisoformat(EXPORT_DAY), "20230327T040000Z-0123abcd")
    with published.upload(f"{prefix}part-0.orc", group="killed") as upload:
        upload.write(b"decrypted rows")
        prepared = upload.prepare()
    assert run(published, "--table-definition", narrow, "--tables", "auditlog_raw") == 0
    with pytest.raises(ObjectMissingError):
        published.publish(prefix, [prepared], b"mark", group="killed")


def test_a_run_that_is_stopped_cleans_up_as_one_that_fails(
    published: Storage, narrow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "run", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("the signal would have ended the process at once"))
    try:
        with pytest.raises(SystemExit) as ended:
            run(published, "--table-definition", narrow)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 128 + signal.SIGTERM


def test_raw_bytes_other_than_the_records_are_refused_and_only_the_requested_table_is_touched(
    metastore: "SparkSession", published: Storage
) -> None:
    publish_records(published, [record(1)], record_bytes=len(record(1).encode()))

    assert run(published, "--tables", "auditlog_raw") == 1
    assert failure_of(published).failure_class is FailureClass.COUNTS_DO_NOT_RECONCILE
    assert run(published, "--tables", "auditlog_red_v", correlation_id="c2") == 1
    assert "managed table of the day" in failure_of(published, "c2").next_step
    assert not metastore.catalog.tableExists(MANAGED)


def test_an_attempt_that_another_run_removed_does_not_stay_published(
    metastore: "SparkSession", published: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_records(published, [record(1)])
    assert run(published, "--tables", "auditlog_raw") == 0
    publish_records(published, [record(2)], fingerprint="f2")
    write = publish._DayTables.write

    def write_and_lose(self: Any, *arguments: Any) -> Any:
        attempts = write(self, *arguments)
        for attempt in attempts:
            prefix = attempt_prefix(attempt.table, attempt.export_day, attempt.attempt)
            published.delete([stored.key for stored in published.list(prefix)])
        return attempts

    monkeypatch.setattr(publish._DayTables, "write", write_and_lose)
    assert run(published, "--tables", "auditlog_raw", correlation_id="c2") == 1
    assert failure_of(published, "c2").failure_class is FailureClass.DUPLICATE_RUN
    assert raw_values(metastore) == [record(1)]


def test_a_wider_definition_adds_columns_and_changes_the_views_and_a_changed_type_is_refused(
    metastore: "SparkSession", published: Storage, tmp_path: Path
) -> None:
    publish_records(published, [record(1)])
    publish_records(published, [record(2)], day=NEXT_DAY)
    first = [column("audit_id", "AUDIT_ID"), column("nino", "claimant", "nino", redacted="mask")]
    assert run(published, "--table-definition", config(tmp_path, *first)) == 0
    wider = [column("amount", "amountPence", type="bigint", redacted="hash"), *first]
    assert run(published, "--table-definition", config(tmp_path, *wider), day=NEXT_DAY) == 0

    assert [table.action for table in report_of(published, day=NEXT_DAY).tables[2:]] == ["changed", "changed"]
    rows = metastore.sql(f"SELECT amount, audit_id FROM {SECURED} ORDER BY date_str").collect()
    assert [tuple(row) for row in rows] == [(None, "id-1"), (2, "id-2")]
    assert metastore.table(REDACTED).columns == ["amount", "audit_id", "nino", "date_str"]

    other_type = config(tmp_path, column("amount", "amountPence"))
    assert run(published, "--table-definition", other_type, correlation_id="c2") == 1
    assert "columns of other types: amount (bigint, defined as string)" in failure_of(published, "c2").cause


def test_a_day_that_is_not_published_is_refused_before_spark_starts(published: Storage) -> None:
    assert run(published) == 1
    failure = failure_of(published)
    assert failure.failure_class is FailureClass.INPUT_INVALID
    assert "not published" in failure.cause
    assert "Publish the records of the day first" in failure.next_step


def test_a_part_that_is_gone_is_named(published: Storage) -> None:
    publish_records(published, [record(1)])
    part = next(stored.key for stored in published.list(daily_records_prefix(AUDIT.on(DAY))) if "part-" in stored.key)
    published.delete([part])

    assert run(published) == 1
    assert part in failure_of(published).cause


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--tables", "auditlog_raw,views"], "auditlog_raw, auditlog_managed, auditlog_sec_v"),
        (["--storage-day", "26/03/2023"], "write it as YYYY-MM-DD"),
        (["--table-definition", "/nowhere/tables.json"], "/nowhere/tables.json"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_fix(
    published: Storage, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert run(published, *more) == 1
    answer = capsys.readouterr().err
    assert "INPUT_INVALID" in answer
    assert said in answer


_CHILD = """
import json, sys
from pathlib import Path
from pyspark.sql import SparkSession
from cdi_dagster.local_spark.metastore import local_metastore_conf
from cdi_dagster.spark.tables.job import main
from cdi_dagster.spark.tables import publish as tables_publish
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.spark.tables.daily_records import RAW, MANAGED, publish_records, record
from cdi_dagster_tests.spark.tables.test_job import arguments

metastore, root, narrow, role = sys.argv[1:]
settings = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2", **local_metastore_conf(Path(metastore))}
builder = SparkSession.builder.master("local[2]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.enableHiveSupport().getOrCreate()
published = open_storage(root)

def log(**values):
    print(json.dumps(values), flush=True)

def publish(number):
    publish_records(published, [record(number), record(number)], fingerprint=f"f{number}")
    options = ("--table-definition", narrow, "--tables", "auditlog_raw,auditlog_managed")
    assert main(arguments(published, *options, correlation_id=f"c{number}")) == 0

def tables():
    raw = [row[0] for row in spark.table(RAW).collect()]
    managed = [row["audit_id"] for row in spark.table(MANAGED).collect()]
    return {"raw": raw, "managed": managed}

if role == "victim":
    publish(1)
    publish_attempt = tables_publish.publish_attempt
    def publish_then_wait(spark, storage, attempt):
        if attempt.table.name == MANAGED:
            log(state="raw is published, managed is written and not published")
            sys.stdin.read()
        publish_attempt(spark, storage, attempt)
    tables_publish.publish_attempt = publish_then_wait
    publish(2)
else:
    found = tables()
    publish(2)
    log(found=found, then=tables())
"""


@pytest.mark.any_spark
def test_the_local_metastore_is_needed_only_once_the_rows_are_written(tmp_path: Path, narrow: str) -> None:
    published = open_storage((tmp_path / "published").as_uri())
    publish_records(published, [record(1)], fingerprint="f1")
    metastore, lines = tmp_path / "metastore", list[str]()
    settings = SparkProcessConfig(work_folder=tmp_path / "work", master="local[1]", metastore_folder=metastore)
    wanted = arguments(published, "--tables", "auditlog_managed", "--table-definition", narrow)

    def step(correlation_id: str) -> SparkExit:
        options = {"config": settings, "correlation_id": correlation_id, "on_line": lines.append}
        return run_spark_step(PUBLISH_TABLES, [*wanted, "--correlation-id", correlation_id], **options)

    with ThreadPoolExecutor(1) as thread, local_metastore_lock(metastore):
        first = thread.submit(step, "c1")
        wait_until(lambda: any("Waiting for the local metastore" in line for line in lines), "the step waits")
        assert f"which process {os.getpid()} has open" in "".join(lines)
        assert len(attempts(published, MANAGED)) == 1
        assert not (metastore / "metastore_db").exists()
    assert first.result().exit_code == 0
    assert step("c2").exit_code == 0
    assert report_of(published, "c2").tables[0].rows == 1

    config(tmp_path, column("audit_id", "AUDIT_ID", type="bigint"))
    assert step("c3").exit_code == 1
    assert "has columns of other types" in failure_of(published, "c3").cause
    assert len(attempts(published, MANAGED)) == 2


@pytest.mark.any_spark
@pytest.mark.kill
@pytest.mark.timeout(1800)  # three JVMs and a new metastore: 175 s seen at load 14
def test_a_kill_between_tables_leaves_each_whole_and_the_metastore_is_for_one_at_a_time(tmp_path: Path) -> None:
    published = open_storage((tmp_path / "published").as_uri())
    metastore = tmp_path / "metastore"
    narrow = config(tmp_path, column("audit_id", "AUDIT_ID"))
    command = [sys.executable, "-c", _CHILD, str(metastore), published.root, narrow]
    with subprocess.Popen(
        [*command, "victim"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as victim:
        try:
            assert victim.stdout is not None
            assert "not published" in victim.stdout.readline()
            settings = SparkProcessConfig(
                work_folder=tmp_path / "work", master="local[1]", conf=local_metastore_conf(metastore)
            )
            second = arguments(published, "--tables", "auditlog_raw", correlation_id="second")
            ended = run_spark_step(PUBLISH_TABLES, second, config=settings, correlation_id="second")
        finally:
            os.killpg(victim.pid, signal.SIGKILL)
    refused = failure_of(published, "second")
    assert (ended.exit_code, refused.failure_class) == (1, FailureClass.LAUNCH_FAILED)
    assert "has the metastore open" in refused.cause
    half_written = (
        f"{partition_prefix(TABLES[RAW], date.fromisoformat(EXPORT_DAY))}20230327T100000Z-0badcafe/part-00000.orc"
    )
    published.write(half_written, b"ORC")

    after = subprocess.run([*command, "next"], stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE_SECONDS)
    answer = json.loads(after.stdout.splitlines()[-1])
    assert answer["found"] == {"raw": [record(2)] * 2, "managed": ["id-1"] * 2}
    assert answer["then"] == {"raw": [record(2)] * 2, "managed": ["id-2"] * 2}
    assert len(attempts(published, RAW)) == len(attempts(published, MANAGED)) == 2
    assert not (tmp_path / "derby.log").exists()
    assert (metastore / "derby.log").exists()
