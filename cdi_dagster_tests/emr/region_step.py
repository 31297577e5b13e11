"""A Spark program that reports region and patience of botocore, as the driver and a worker of an executor have them."""

import sys
from collections.abc import Iterable

from botocore.session import Session
from pyspark import SparkContext

from cdi_dagster.aws.clients import client
from cdi_dagster.spark.reporting import open_reporter


def seen(_: Iterable[int]) -> list[str]:
    names = ("region", "metadata_service_num_attempts", "metadata_service_timeout")
    return [f"{client('secretsmanager').meta.region_name} {[Session().get_config_variable(name) for name in names]}"]


def main(argv: list[str]) -> int:
    with open_reporter(argv) as (reporter, _), SparkContext() as spark:
        reporter.progress(f"driver {seen([])[0]}")
        reporter.progress(f"worker {spark.parallelize([1], 1).mapPartitions(seen).collect()[0]}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
