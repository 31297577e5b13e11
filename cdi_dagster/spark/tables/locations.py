"""The locations of table data, and their form for Spark.

Pure; the only module that turns a storage URI into a path for Spark.
"""

import re
from datetime import date
from urllib.parse import unquote, urlsplit

from cdi_dagster.core.storage_keys import shared_tables_prefix, tables_prefix
from cdi_dagster.core.table_definition import PARTITION_COLUMN, Table, TableKind

_S3_SCHEME = re.compile(r"^s3[an]?://")


def spark_path(uri: str) -> str:
    """Return a storage URI in the form of Spark's file systems, whose paths are not percent-encoded.

    S3 stays `s3://`: EMR knows it so, and Athena skips partitions under `s3a://` without an error. Local Spark is
    configured for it (`local_spark.s3a_conf`).
    """
    parts = urlsplit(uri)
    return f"file://{unquote(parts.path)}" if parts.scheme == "file" else uri


def same_place(one: str, other: str) -> bool:
    """Whether two locations of a metastore are one folder: S3 has had three schemes, and `file:/` is `file:///`."""

    def written_alike(location: str) -> str:
        return re.sub(r"^file:/+", "file:///", _S3_SCHEME.sub("s3://", location)).rstrip("/")

    return written_alike(one) == written_alike(other)


def database_prefix(database: str) -> str:
    """Return the prefix, below the published root, that is a database's location in the metastore."""
    return f"{tables_prefix()}{database}/"


def table_prefix(table: Table) -> str:
    """Return the prefix, below the published root, of all data of a table."""
    if table.kind is TableKind.TABLE:
        return f"{shared_tables_prefix()}{table.database}/{table.short_name}/"
    return f"{database_prefix(table.database)}{table.short_name}/"


def partition_prefix(table: Table, export_day: date) -> str:
    """Return the prefix of all attempts at one partition, or at a table without; below it `<attempt id>/`."""
    if not table.is_partitioned:
        return table_prefix(table)
    return f"{table_prefix(table)}{PARTITION_COLUMN}={export_day}/"


def attempt_prefix(table: Table, export_day: date, attempt: str) -> str:
    """Return the prefix of one attempt's files."""
    return f"{partition_prefix(table, export_day)}{attempt}/"


def attempt_mark_key(table: Table, export_day: date, attempt: str) -> str:
    """Return the key of the description of an attempt that was published. Spark and Hive skip names with `_` first."""
    return f"{attempt_prefix(table, export_day, attempt)}_attempt.json"
