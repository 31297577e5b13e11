"""The locations of table data, and their form for Spark.

Pure; the only module that turns a storage URI into a path for Spark.
"""

from datetime import date
from urllib.parse import unquote, urlsplit

from cdi_dagster.core.storage_keys import tables_prefix
from cdi_dagster.spark.tables.definition import PARTITION_COLUMN


def spark_path(uri: str, *, s3_scheme: str = "s3a") -> str:
    """Return a storage URI in the form of Spark's file systems.

    Hadoop's paths are not percent-encoded, and open-source Spark knows S3 as `s3a`. So does EMR from 7.10 on,
    where S3A is behind both schemes; `s3_scheme="s3"` keeps `s3://` where readers of the metastore know only `s3`.
    """
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return f"file://{unquote(parts.path)}"
    return f"{s3_scheme}://{parts.netloc}{parts.path}" if parts.scheme in ("s3", "s3a") else uri


def table_prefix(table: str) -> str:
    """Return the prefix, below the published root, of all data of a table (`database.name`)."""
    database, name = table.split(".")
    return f"{tables_prefix()}{database}/{name}/"


def partition_prefix(table: str, export_day: date) -> str:
    """Return the prefix of all attempts at one partition; below it `<attempt id>/`, one of them published."""
    return f"{table_prefix(table)}{PARTITION_COLUMN}={export_day}/"
