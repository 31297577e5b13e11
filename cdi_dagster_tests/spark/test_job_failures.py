"""An unexpected error of Spark in a failure: its kind, never the row it failed on."""

import pytest
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from cdi_dagster.core.failures import FailureClass
from cdi_dagster.spark.job_failures import failure_of


@pytest.mark.spark
def test_an_error_within_a_task_is_reported_by_its_kind_without_the_value_it_quotes(spark: SparkSession) -> None:
    rows = spark.createDataFrame([("Wolpertinger",)], "val string").coalesce(1)
    quoting: dict[tuple[str, ...], Column] = {  # as Spark 3.5 calls it, and as Spark 4 does
        ("RuntimeException", "USER_RAISED_EXCEPTION"): F.raise_error(F.col("val")),
        ("DateTimeParseException", "CANNOT_PARSE_TIMESTAMP"): F.to_timestamp(
            F.concat(F.lit("2023-03-26 "), "val"), "yyyy-MM-dd"
        ),
    }
    for kinds, column in quoting.items():
        with pytest.raises((Py4JError, PySparkException)) as raised:
            rows.select(column.alias("x")).collect()
        assert "Wolpertinger" in str(raised.value)
        failure = failure_of(raised.value)
        assert failure.failure_class is FailureClass.JOB_FAILED
        assert any(kind in failure.cause for kind in kinds)
        assert "Wolpertinger" not in str(failure.to_json())


@pytest.mark.spark
def test_an_error_of_planning_keeps_its_sentence(spark: SparkSession) -> None:
    with pytest.raises(PySparkException) as raised:
        spark.read.json("file:///nowhere/at/all")
    assert "file:/nowhere/at/all" in failure_of(raised.value).cause
