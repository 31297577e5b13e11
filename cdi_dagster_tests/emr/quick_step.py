"""What clusters run where Spark is not the point: a day's step by its arguments, named as the program is, and real."""

import sys
from pathlib import Path

from cdi_dagster.spark.reporting import open_reporter
from cdi_dagster_tests.gate.quick_ingestion import report_of

if __name__ == "__main__":
    step = Path(sys.argv[0]).stem
    with open_reporter(sys.argv[1:]) as (reporter, arguments):
        reporter.report(step, report_of(step, arguments))
