"""Tables of an installation: any names, adopted tables, views that become tables, and tables that become views."""

import json
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import run_prefix, tables_report_key
from cdi_dagster.core.tables_report import TablesReport
from cdi_dagster.spark.tables import statements
from cdi_dagster.spark.tables.job import main
from cdi_dagster.spark.tables.showing import shown_value
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster.table_definitions import read_table_definition
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.spark.tables.daily_records import DAY, EXPORT_DAY, publish_records, record

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

pytestmark = pytest.mark.spark

NEXT_DAY = date(2023, 3, 27)
MANAGED = {"name": "lab.managed", "kind": "managed"}
ID = {"name": "audit_id", "path": "AUDIT_ID", "type": "string"}
AMOUNT = {"name": "amount", "path": "amountPence", "type": "bigint"}


@pytest.fixture
def metastore(spark: "SparkSession") -> "Iterator[SparkSession]":
    yield spark
    for database in ("lab", "`1_lab`"):
        spark.sql(f"DROP DATABASE IF EXISTS {database} CASCADE")


@pytest.fixture
def published(tmp_path: Path) -> Storage:
    storage = open_storage((tmp_path / "published").as_uri())
    publish_records(storage, [record(1), record(2)])
    publish_records(storage, [record(3)], day=NEXT_DAY)
    return storage


def publish(
    published: Storage,
    tables: list[dict[str, str]],
    *columns: Mapping[str, Any],
    day: date = DAY,
    correlation_id: str = "c1",
) -> TablesReport:
    """Publish the tables of a day by a definition, or raise the failure that the job reports."""
    definition = Path(published.root.removeprefix("file://")).parent / "definition.json"
    definition.write_text(json.dumps({"format_version": 2, "tables": tables, "columns": columns}))
    where = ["--published-root", published.root, "--collection", AUDIT.id, "--storage-day", str(day)]
    more = ["--table-definition", str(definition), "--correlation-id", correlation_id]
    if main([*where, *more]) != 0:
        raise CdiError.from_json(json.loads(published.read(f"{run_prefix(AUDIT.on(day), correlation_id)}failure.json")))
    return TablesReport.from_json(json.loads(published.read(tables_report_key(AUDIT.on(day), correlation_id))))


def over_managed(kind: str, **more: str) -> list[dict[str, str]]:
    return [MANAGED, {"name": "lab.over", "kind": kind, **more}]


def shown(column: Mapping[str, Any], showing: str = "keep", name: str = "over") -> dict[str, Any]:
    return {**column, "shown": {name: showing}}


def rows(spark: "SparkSession", sql: str) -> "list[Row]":
    return spark.sql(sql).collect()


def test_names_may_begin_with_a_digit_and_be_reserved_words(metastore: "SparkSession", published: Storage) -> None:
    names = ("1_abroad_for_more_than_one_month", "Select", "2023", "date", "_")
    columns = [
        {**ID, "name": name, "shown": {"table": showing, "3_view": showing}, "comment": "it's `so`; \\ ${env:HOME}"}
        for name, showing in zip(names, ("keep", "mask", "hash", "keep", "keep"), strict=True)
    ]
    tables = [
        {"name": "1_lab.order", "kind": "managed"},
        {"name": "1_lab.table", "kind": "table"},
        {"name": "1_lab.3_view", "kind": "view"},
        {"name": "1_lab.Group", "kind": "raw"},
    ]
    publish(published, tables, *columns)
    publish(published, tables, *columns, {**AMOUNT, "name": "join", "shown": {"table": "keep", "3_view": "keep"}})

    found = rows(metastore, "SELECT * FROM `1_lab`.`table` ORDER BY `date`")
    assert found == rows(metastore, "SELECT * FROM `1_lab`.`3_view` ORDER BY `date`")
    # New columns of a table go to its end.
    assert found[0][:2] == ("id-1", "REDACTED")
    assert found[0].asDict()["join"] == 1
    assert len(rows(metastore, "SELECT `1_abroad_for_more_than_one_month` FROM `1_lab`.`order`")) == 2
    assert len(rows(metastore, "SELECT val FROM `1_lab`.`group`")) == 2
    assert published.root in rows(metastore, "DESCRIBE DATABASE `1_lab`")[-2]["info_value"].replace(
        "file:/", "file:///"
    )


def test_a_table_over_managed_holds_what_the_view_shows_and_nothing_more(
    metastore: "SparkSession", published: Storage, tmp_path: Path
) -> None:
    publish_records(published, [record(1, claimant={"nino": None, "dateOfBirth": "1980-02-29"}), record(2)])
    tables = [MANAGED, {"name": "lab.over", "kind": "table"}, {"name": "lab.v", "kind": "view"}]
    kinds = {"string": "claimant.nino", "bigint": "amountPence", "date": "claimant.dateOfBirth", "int": "amountPence"}
    columns = [
        {"name": f"{kind}_{showing}", "path": path.split("."), "type": kind, "shown": {"over": showing, "v": showing}}
        for kind, path in kinds.items()
        for showing in ("keep", "mask", "hash", "drop")
        if (showing, kind) not in {("mask", "bigint"), ("mask", "date"), ("mask", "int"), ("hash", "date")}
    ]
    report = publish(published, tables, *columns)

    table = rows(metastore, "SELECT * FROM lab.over ORDER BY bigint_keep")
    assert table == rows(metastore, "SELECT * FROM lab.v ORDER BY bigint_keep")
    (over,) = read_table_definition(str(tmp_path / "definition.json")).named(["over"])
    managed = [row.asDict() for row in rows(metastore, "SELECT * FROM lab.managed ORDER BY bigint_keep")]
    expected = [tuple(shown_value(column)(row[column.name]) for column in over.columns) for row in managed]
    assert [tuple(row)[:-1] for row in table] == expected
    assert len(table) == 2
    assert metastore.table("lab.over").columns == [
        *("string_keep", "string_mask", "string_hash", "bigint_keep", "bigint_hash", "date_keep", "int_keep"),
        *("int_hash", "date_str"),
    ]
    stored = {found.key.rsplit("/", 2)[0] for found in published.list("data/") if found.key.endswith(".orc")}
    assert stored == {f"data/lab/over/date_str={EXPORT_DAY}"}
    assert [(found.kind, found.rows, found.action) for found in report.tables[1:]] == [
        ("table", 2, "replaced"),
        ("view", 2, "created"),
    ]


def test_an_existing_table_is_adopted_with_its_other_partitions(
    metastore: "SparkSession", published: Storage, tmp_path: Path
) -> None:
    metastore.sql("CREATE DATABASE lab")
    metastore.sql(
        "CREATE EXTERNAL TABLE lab.over (theirs STRING, AUDIT_ID STRING) PARTITIONED BY (date_str STRING) "
        f"STORED AS ORC LOCATION '{tmp_path / 'theirs'}'"
    )
    for day in ("2023-03-26", EXPORT_DAY):
        metastore.sql(f"INSERT INTO lab.over PARTITION (date_str = '{day}') VALUES ('x', 'before')")
    theirs = f"data/lab/over/date_str={EXPORT_DAY}/HIVE_UNION_SUBDIR_1/000000_0"
    published.write(theirs, b"ORC")
    publish(published, over_managed("table"), shown(AMOUNT), shown(ID))

    assert published.head(theirs)
    assert metastore.table("lab.over").columns == ["theirs", "AUDIT_ID", "amount", "date_str"]
    assert rows(metastore, "SELECT * FROM lab.over ORDER BY date_str, amount") == [
        ("x", "before", None, "2023-03-26"),
        (None, "id-1", 1, EXPORT_DAY),
        (None, "id-2", 2, EXPORT_DAY),
    ]
    assert list((tmp_path / "theirs" / f"date_str={EXPORT_DAY}").glob("part-*"))


def test_a_column_that_the_step_of_another_day_adds_at_the_same_moment_is_there(
    metastore: "SparkSession", published: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(published, [MANAGED], ID)
    add_columns = statements.add_columns

    def after_the_other(*arguments: Any) -> str:
        metastore.sql(add_columns(*arguments))
        return add_columns(*arguments)

    monkeypatch.setattr(statements, "add_columns", after_the_other)
    publish(published, [MANAGED], ID, AMOUNT, correlation_id="c2")
    assert rows(metastore, f"SELECT amount FROM lab.managed WHERE date_str = '{EXPORT_DAY}' ORDER BY 1") == [(1,), (2,)]


def test_a_table_with_other_columns_is_refused_and_every_one_of_them_named(
    metastore: "SparkSession", published: Storage
) -> None:
    metastore.sql("CREATE DATABASE lab")
    metastore.sql(
        "CREATE TABLE lab.managed (audit_id BIGINT, amount STRING) PARTITIONED BY (date_str STRING) STORED AS ORC"
    )
    with pytest.raises(CdiError) as refused:
        publish(published, [MANAGED], ID, AMOUNT)
    assert refused.value.failure_class is FailureClass.INPUT_INVALID
    assert "audit_id (bigint, defined as string), amount (string, defined as bigint)" in refused.value.cause
    assert list(published.list("corporate_data_ingestion/tables/")) == []


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        ("PARTITIONED BY (day STRING) STORED AS ORC", "is partitioned by day, not by date_str"),
        ("STORED AS ORC", "is partitioned by nothing"),
        ("PARTITIONED BY (date_str STRING) STORED AS TEXTFILE", "is not stored as ORC"),
    ],
)
def test_a_table_of_another_make_is_refused(
    metastore: "SparkSession", published: Storage, make: str, problem: str
) -> None:
    metastore.sql("CREATE DATABASE lab")
    metastore.sql(f"CREATE TABLE lab.managed (audit_id STRING) {make}")
    with pytest.raises(CdiError, match=problem):
        publish(published, [MANAGED], ID)


def test_a_view_becomes_a_table_and_a_table_a_view_only_where_the_definition_states_so(
    metastore: "SparkSession", published: Storage
) -> None:
    publish(published, over_managed("view"), shown(ID))
    with pytest.raises(CdiError, match=r"lab\.over is a view in the metastore, but a table") as refused:
        publish(published, over_managed("table"), shown(ID))
    assert '"replaces": "view"' in refused.value.next_step
    assert "cdi tables --from" in refused.value.next_step
    assert len(rows(metastore, "SELECT * FROM lab.over")) == 2

    replacing = over_managed("table", replaces="view")
    publish(published, replacing, shown(ID))
    publish(published, replacing, shown(ID), day=NEXT_DAY)
    publish(published, replacing, shown(ID))
    assert sorted(row["audit_id"] for row in rows(metastore, "SELECT * FROM lab.over")) == ["id-1", "id-2", "id-3"]

    with pytest.raises(CdiError, match=r"lab\.over is a table in the metastore, but a view") as refused:
        publish(published, over_managed("view"), shown(ID))
    assert '"replaces": "table"' in refused.value.next_step
    report = publish(published, over_managed("view", replaces="table"), shown(ID))
    assert report.tables[-1].action == "created"
    assert len(rows(metastore, "SELECT * FROM lab.over")) == 3
    assert any(found.key.startswith("data/lab/over/") for found in published.list("data/"))


def test_a_table_whose_data_would_go_with_it_is_not_replaced_by_a_view(
    metastore: "SparkSession", published: Storage
) -> None:
    metastore.sql("CREATE DATABASE lab")
    metastore.sql("CREATE TABLE lab.over (audit_id STRING) STORED AS ORC")
    with pytest.raises(CdiError, match="is not external, so its files would go with it"):
        publish(published, over_managed("view", replaces="table"), shown(ID))
    assert metastore.catalog.tableExists("lab.over")
