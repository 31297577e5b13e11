"""Columns out of records, on a real Spark: exact keys, types, and nulls for what is not of the type."""

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from cdi_dagster.core.table_definition import Column
from cdi_dagster.spark.tables.transforms import column_texts, managed_rows, typed_beside_texts, unparsable_counts

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark


def column(name: str, *path: str, type: str = "string") -> Column:
    return Column(name=name, path=path, type=type)


def records(spark: "SparkSession", *lines: str) -> "DataFrame":
    return spark.createDataFrame([(line,) for line in lines], "val STRING")


def test_keys_count_by_case_and_a_key_may_be_a_value_and_a_way_down(spark: "SparkSession") -> None:
    lines = records(spark, '{"Status":"A","a.b":{"C":1,"c":2},"status":"b","x":{"y":{"z":[1.5,"q"]}}}', '{"x":"text"}')
    wanted = (
        column("upper", "Status"),
        column("lower", "status"),
        column("dotted", "a.b", "C", type="int"),
        column("dotted_lower", "a.b", "c", type="decimal(4,1)"),
        column("whole", "x"),
        column("deep", "x", "y", "z"),
    )

    rows = managed_rows(lines, wanted)
    assert [(field.name, field.dataType.simpleString()) for field in rows.schema] == [
        (each.name, each.type) for each in wanted
    ]
    assert [tuple(row) for row in rows.collect()] == [
        ("A", "b", 1, Decimal("2.0"), '{"y":{"z":[1.5,"q"]}}', '[1.5,"q"]'),
        (None, None, None, None, "text", None),
    ]


def test_a_value_that_is_not_of_the_type_is_null_and_counted(spark: "SparkSession") -> None:
    wanted = (
        column("n", "n", type="bigint"),
        column("t", "t", type="timestamp"),
        column("d", "d", type="date"),
        column("f", "f", type="double"),
        column("b", "b", type="boolean"),
    )
    lines = records(
        spark,
        '{"n":12,"t":{"d_date":"2023-03-26T23:59:59.999Z"},"d":"1980-02-29","f":1e+22,"b":true}',
        '{"n":"12 pounds","t":{"d_date":"999-12-31T23:00:00.000Z"},"d":"1981-02-29","f":NaN,"b":"maybe"}',
        '{"n":99999999999999999999,"t":"yesterday","d":{"d_date":"2023-03-26T23:59:59.999Z"},"f":"","b":null}',
        '{"n":1.5,"t":"2023-03-26T23:59:59.999+0100","f":-0.0}',
        "{}",
    )

    typed = typed_beside_texts(column_texts(lines, wanted), wanted)
    counted = typed.agg(*unparsable_counts(wanted)).collect()[0].asDict()
    assert counted == {"n": 3, "t": 2, "d": 1, "f": 1, "b": 1}
    rows = managed_rows(lines, wanted).selectExpr("n", "CAST(t AS STRING) AS t", "d", "f", "b").collect()
    assert [tuple(row) for row in rows] == [
        (12, "2023-03-26 23:59:59.999", date(1980, 2, 29), 1e22, True),
        (None, None, None, None, None),
        (None, None, date(2023, 3, 26), None, None),
        (None, "2023-03-26 22:59:59.999", None, -0.0, None),
        (None, None, None, None, None),
    ]


def test_a_huge_number_beside_a_column_does_not_empty_the_row(spark: "SparkSession") -> None:
    lines = records(spark, '{"a":"kept","n":' + "7" * 5000 + "}", '{"a":"deep","n":' + "[" * 2000 + "]" * 2000 + "}")

    assert [row["a"] for row in managed_rows(lines, (column("a", "a"),)).collect()] == ["kept", "deep"]
