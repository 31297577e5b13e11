"""Spark job: checks, where it runs, what the other jobs need, and reports a finding for each part.

`main(argv)` is the program, the same locally and on EMR. A failed check is a finding, not a failure of the job: the job
fails only where it cannot check at all.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

from pyspark.sql import SparkSession

from cdi_dagster.core.findings import CheckResult, Finding, failed, note, ok
from cdi_dagster.spark.cluster_checks.node import NODE_CHECKS, Target, run_check, run_node_checks
from cdi_dagster.spark.job_failures import failure_of
from cdi_dagster.spark.job_process import ended_by_signal, spark_session
from cdi_dagster.spark.key_service.config import add_key_service_arguments, key_service_config
from cdi_dagster.spark.reporting import Reporter, correlated_logging, open_reporter

STEP: Final = "check_cluster"
_MOST_DATABASES_NAMED = 5
_log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run the job: 0 when every check has a finding and all are reported, 1 when that failed, 2 when used wrongly."""
    with open_reporter(argv) as (reporter, rest):
        arguments = parse_arguments(rest)
        with correlated_logging(arguments.correlation_id), ended_by_signal():
            try:
                checks = [_reported(reporter, *found) for found in _findings(target_of(arguments))]
            except Exception as error:  # noqa: BLE001 - the end of every failure: it gets a class and is reported
                reporter.failure(failure_of(error))
                return 1
            results = [check["result"] for check in checks]
            totals = {str(result): results.count(result) for result in CheckResult}
            reporter.report(STEP, {"checks": checks, "totals": totals})
            return 0


def _reported(reporter: Reporter, name: str, title: str, finding: Finding) -> dict[str, Any]:
    """Report a finding at once, and so also in the log: a role that cannot write to the root sends no report."""
    fix = f" Next: {finding.fix}" if finding.fix else ""
    reporter.progress(f"{title}: {finding.result}: {finding.text}.{fix}")
    return {"name": name, "title": title, **finding.to_json()}


def _findings(target: Target) -> Iterator[tuple[str, str, Finding]]:
    """Yield name, title and finding of each check: first what needs no Spark."""
    of_driver = run_node_checks(target)
    try:
        with spark_session(f"cdi {STEP}") as (spark, catalogue):
            of_worker = _on_a_worker(spark, target)
            with catalogue or nullcontext():
                of_catalogue = run_check(partial(check_metastore, spark))
    except Exception as error:  # noqa: BLE001 - what was found without Spark is reported all the same
        failure = failure_of(error)
        of_worker = failed(failure.cause, failure.next_step)
        of_catalogue = note("not checked: Spark did not start, or ended")
    for name, (title, _) in NODE_CHECKS.items():
        worker = of_worker[name] if isinstance(of_worker, dict) else None
        yield name, title, merged(of_driver[name], worker)
    if isinstance(of_worker, Finding):
        yield "workers", "Workers", of_worker
    yield "metastore", "Metastore", of_catalogue


def merged(driver: Finding, worker: Finding | None) -> Finding:
    """Return the finding of a check that ran in the driver and in a worker: a failure of either."""
    if driver.result is not CheckResult.FAILED and worker is not None and worker.result is CheckResult.FAILED:
        return failed(f"in the driver: {driver.result}; on a worker: {worker.text}", str(worker.fix))
    return driver


def _on_a_worker(spark: SparkSession, target: Target) -> dict[str, Finding] | Finding:
    """Run the checks of a node in a Python worker of an executor; a finding where no worker did."""
    try:
        rows = spark.sparkContext.parallelize([target], 1).mapPartitions(_check_partition).collect()
    except Exception as error:  # noqa: BLE001 - a check must not stop the others
        cause = failure_of(error).cause
        return failed(f"no worker could run the checks: {cause}", "Read the executors' log below the cluster's LogUri.")
    return dict(rows)


def _check_partition(targets: Iterable[Target]) -> Iterator[tuple[str, Finding]]:
    for target in targets:
        yield from run_node_checks(target).items()


def check_metastore(spark: SparkSession) -> Finding:
    """Whether the catalogue responds, and is one that outlives this session."""
    fix = "Check `metastore` of the cluster template, and glue:GetDatabases of the instance role or the route to Hive."
    if spark.conf.get("spark.sql.catalogImplementation", "") != "hive":
        return failed("Spark has no Hive catalogue: tables would end with the step", fix)
    try:
        names = sorted(str(row[0]) for row in spark.sql("SHOW DATABASES").collect())
    except Exception as error:  # noqa: BLE001 - Spark wraps whatever the metastore's client raises
        return failed(f"the metastore does not list its databases: {failure_of(error).cause}", fix)
    named = ", ".join(names[:_MOST_DATABASES_NAMED]) + (", …" if len(names) > _MOST_DATABASES_NAMED else "")
    return ok(f"lists {len(names)} databases ({named}); Spark {spark.version}")


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line; SystemExit with 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog=STEP, description="Check what the other jobs need, where they run.")
    parser.add_argument("--corporate-root", required=True, help="file:///folder or s3://bucket")
    parser.add_argument("--published-root", required=True, help="file:///folder or s3://bucket")
    parser.add_argument("--correlation-id", required=True)
    parser.add_argument("--sample-key", help="an object below the corporate root, to be read")
    parser.add_argument("--sample-version-id", help="its version")
    add_key_service_arguments(parser)
    return parser.parse_args(argv)


def target_of(arguments: argparse.Namespace) -> Target:
    """Return what is to be checked. Raises CdiError where the key service's arguments do not fit together."""
    return Target(
        corporate_root=arguments.corporate_root,
        published_root=arguments.published_root,
        sample_key=arguments.sample_key,
        sample_version_id=arguments.sample_version_id,
        key_service=key_service_config(arguments),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
