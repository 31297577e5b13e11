"""Spark job: publishes the tables of one collection and storage day from its daily records, or from its snapshot.

`main(argv)` is the program, the same locally and on EMR. It reads the parts that the `_SUCCESS` mark names, replaces
the partition of each table as a whole, and checks that the views show it.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import run_failure_key, tables_report_key
from cdi_dagster.core.tables_report import TablesReport
from cdi_dagster.published.mark import Mark
from cdi_dagster.published.read import require_published_parts
from cdi_dagster.published.snapshot_mark import SnapshotMark
from cdi_dagster.published.snapshots import require_snapshot
from cdi_dagster.spark.job_failures import failure_of, write_failure
from cdi_dagster.spark.job_process import ended_by_signal, spark_session
from cdi_dagster.spark.reporting import Reporter, correlated_logging, open_reporter
from cdi_dagster.spark.tables.publish import Request, publish
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster.table_definitions import read_table_definition

STEP = "publish_tables"
_log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run the job: 0 done, 1 failed (the failure is reported and written), 2 wrong usage."""
    with open_reporter(argv) as (reporter, rest):
        arguments = _parse(rest)
        with correlated_logging(arguments.correlation_id), ended_by_signal():
            return _main(arguments, reporter)


def _main(arguments: argparse.Namespace, reporter: Reporter) -> int:
    try:
        request = _request(arguments)
        published = _open(arguments.published_root)
    except CdiError as failure:
        reporter.failure(failure)
        return 1
    try:
        report = run(request, published, reporter)
    except CdiError as failure:
        write_failure(published, _failure_key(request), failure)
        reporter.failure(failure)
        return 1
    reporter.report(STEP, report.to_json())
    return 0


def run(request: Request, published: Storage, reporter: Reporter) -> TablesReport:
    """Check what can be checked without Spark, start it, publish, write the report.

    Raises:
        CdiError: whatever went wrong, with its class.
    """
    report_key = tables_report_key(request.collection.on(request.storage_day), request.correlation_id)
    try:
        published.delete([report_key, _failure_key(request)])  # of an earlier try of this same run
        day = request.collection.on(request.storage_day)
        records: Mark | SnapshotMark = (
            require_snapshot(published, day)
            if request.definition.is_of_snapshots
            else require_published_parts(published, day)
        )
        reporter.progress(f"Starting Spark for the tables of {records.published} records", records=records.published)
        with spark_session(f"cdi {STEP} {request.collection.id} {request.storage_day}") as (spark, catalogue):
            report = publish(spark, request, records, published, reporter, catalogue=catalogue)
        published.write(report_key, json.dumps(report.to_json(), indent=1).encode())
    except Exception as error:
        raise failure_of(error) from error
    return report


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=STEP, description="Publish the tables of one collection and storage day.")
    parser.add_argument("--published-root", required=True, help="file:///folder or s3://bucket")
    parser.add_argument("--collection", required=True, help="db:name")
    parser.add_argument("--storage-day", required=True, help="YYYY-MM-DD")
    parser.add_argument("--correlation-id", required=True)
    parser.add_argument("--table-definition", required=True, help="path or URI of the definition of the tables")
    parser.add_argument("--tables", help="which, by their names without database, with commas between (default: all)")
    return parser.parse_args(argv)


def _request(arguments: argparse.Namespace) -> Request:
    try:
        storage_day = parse_day(arguments.storage_day)
    except ValueError as error:
        raise _invalid(f"--storage-day: {error}") from error
    definition = read_table_definition(arguments.table_definition)
    try:
        tables = definition.tables if arguments.tables is None else definition.named(arguments.tables.split(","))
    except ValueError as error:
        raise _invalid(f"--tables: {error}.") from error
    return Request(
        collection=find_collection(arguments.collection),
        storage_day=storage_day,
        correlation_id=arguments.correlation_id,
        definition=definition,
        tables=tables,
    )


def _open(root: str) -> Storage:
    try:
        return open_storage(root)
    except ValueError as error:
        raise _invalid(f"--published-root: {error}") from error


def _failure_key(request: Request) -> str:
    return run_failure_key(request.collection.on(request.storage_day), request.correlation_id)


def _invalid(cause: str) -> CdiError:
    return CdiError(FailureClass.INPUT_INVALID, cause, next_step="Correct the argument and run again.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
