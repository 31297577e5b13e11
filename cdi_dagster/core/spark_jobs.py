"""The Spark jobs as values: what each needs on the machine it runs on, and one run of it. Standard library only."""

from dataclasses import dataclass
from datetime import date

from cdi_dagster.core.collections import Collection


@dataclass(frozen=True, kw_only=True)
class SparkJob:
    """One program of `cdi_dagster.spark`, by its entry point.

    Attributes:
        name: of the module in `cdi_dagster/spark/entry_points`, of the EMR step, and of `CurrentStep` in status rows.
        needs_s3a: whether Spark itself writes what it publishes, so that an `s3://` root needs S3A.
        computes_in_jvm: whether the JVM does its work, not Python workers: a local JVM then has to be quick, not only
            to start quickly.
    """

    name: str
    needs_s3a: bool = False
    computes_in_jvm: bool = False


LOCAL_METASTORE = "spark.cdi.local_metastore"
"""Spark setting: the folder of the local metastore, where the job has to lock it; clusters have none."""

INGEST_DAILY = SparkJob(name="ingest_daily")
"""Reads and writes objects with boto3: it needs no S3A."""
PUBLISH_TABLES = SparkJob(name="publish_tables", needs_s3a=True)
BUILD_SNAPSHOT = SparkJob(name="build_snapshot", needs_s3a=True, computes_in_jvm=True)
CHECK_CLUSTER = SparkJob(name="check_cluster")
"""Publishes nothing: it checks what the two above need where they run (`cdi doctor --on-cluster`)."""


@dataclass(frozen=True, kw_only=True)
class SparkStep:
    """One run of a Spark job: the same program with the same arguments, locally and on EMR.

    Attributes:
        job: what runs.
        arguments: its command line, without the Pipes arguments that the launcher adds. Everything the job needs is
            here or in objects it names: environment variables do not reach every EMR deploy mode.
        collection: what it works on.
        storage_day: the partition.
        correlation_id: of the run.
        input_bytes: compressed bytes it will read; EMR sizes the cluster by it.
        is_followed: whether its run has another Spark step after it, which can use the same cluster.
    """

    job: SparkJob
    arguments: tuple[str, ...]
    collection: Collection
    storage_day: date
    correlation_id: str
    input_bytes: int
    is_followed: bool = False

    @property
    def name(self) -> str:
        """Of the job."""
        return self.job.name
