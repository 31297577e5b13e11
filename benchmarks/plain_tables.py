"""Plain tables: the baseline, a Spark SQL program that makes the two audit tables of a day in the obvious way.

Lines are read as text, `from_json` parses each with one schema, casts make the types, Spark's own ORC writer writes
zlib with Spark's own settings, and the partitions are added to a Hive metastore. It does less than the job: no counts,
nothing read back, no whole-or-absent publication, values not as exact. Run by spark-submit.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 (the usual name)
from pyspark.sql.types import StringType, StructField, StructType

from cdi_dagster.core.table_definition import Column
from cdi_dagster.table_definitions import read_table_definition

DONE = "Tables are done"


def main(argv: Sequence[str]) -> int:
    """Make the raw and the managed table from parts of records."""
    parser = argparse.ArgumentParser(prog="plain_tables", description=__doc__)
    parser.add_argument("--records", required=True, help="folder of the parts")
    parser.add_argument("--output", required=True, help="folder of the tables")
    parser.add_argument("--export-day", required=True)
    parser.add_argument("--table-definition", required=True)
    found = parser.parse_args(list(argv))
    managed_table = read_table_definition(found.table_definition).managed
    columns = managed_table.columns if managed_table else ()
    spark = SparkSession.builder.appName("plain tables").enableHiveSupport().getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    lines = spark.read.option("lineSep", "\n").text(f"{found.records}/part-*.gz").toDF("val")
    parsed = lines.select(F.from_json("val", _schema(columns)).alias("r"))
    managed = parsed.select(*(F.expr(_typed(column)).alias(column.name) for column in columns))
    spark.sql("CREATE DATABASE IF NOT EXISTS uc_dw_auditlog")
    for name, rows in (("raw", lines), ("managed", managed)):
        folder = f"{found.output}/{name}"
        partition = f"{folder}/date_str={found.export_day}"
        rows.write.option("compression", "zlib").orc(partition)
        types = ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in rows.schema)
        table = f"uc_dw_auditlog.auditlog_{name}"
        spark.sql(
            f"CREATE EXTERNAL TABLE IF NOT EXISTS {table} ({types}) PARTITIONED BY (date_str STRING) "
            f"STORED AS ORC LOCATION '{folder}'"
        )
        spark.sql(f"ALTER TABLE {table} ADD PARTITION (date_str = '{found.export_day}') LOCATION '{partition}'")
    print(DONE, flush=True)
    spark.stop()
    return 0


def _schema(columns: Sequence[Column]) -> StructType:
    tree: dict[str, Any] = {}
    for column in columns:
        below = tree
        for key in column.path[:-1]:
            below = below.setdefault(key, {})
        below[column.path[-1]] = {"d_date": None} if column.type == "timestamp" else None
    return _struct(tree)


def _struct(tree: Mapping[str, Any]) -> StructType:
    return StructType([StructField(key, _struct(below) if below else StringType()) for key, below in tree.items()])


def _typed(column: Column) -> str:
    path = ".".join(f"`{key}`" for key in ("r", *column.path))
    if column.type == "timestamp":
        path += ".`d_date`"
    return path if column.type == "string" else f"try_cast({path} AS {column.type})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
