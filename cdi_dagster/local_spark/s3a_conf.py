"""S3 for Spark on this machine: the jars that pyspark does not include, and the settings for `s3://`.

Decides and checks only. Shared by the local launcher, `cdi ingest`, `cdi doctor` and tests through `spark_submit`;
clusters have their own S3A. No credentials here: Spark reads them from the environment.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from cdi_dagster.aws.clients import REGION_VARIABLE, region_environment
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.storage import encryption

JARS_FOLDER = Path(".cdi") / "jars"
"""Where `make s3a-jars` downloads them: `spark-3.5/`, `spark-4.0/` below it."""

_SPARK_CLOUD = "org.apache.spark.internal.io.cloud"
_HADOOP_COMMIT = "org.apache.hadoop.fs.s3a.commit"


def s3a_conf(*, endpoint_url: str | None = None, region: str | None = None) -> dict[str, str]:
    """Return the Spark settings to write and read `s3://` through S3A with the magic committer.

    Hadoop's own name of it is `s3a://`. Locations in a metastore are for readers too, and Athena skips partitions under
    `s3a://`: so S3A takes `s3://` here, as it does on EMR.

    The magic committer uploads task output in parts and completes the uploads at the end of the job, so nothing is
    renamed (on S3 a rename is a copy).

    Args:
        endpoint_url: of an S3 other than AWS's, for example a test server.
        region: of the buckets.
    """
    conf = {
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.s3a.committer.name": "magic",
        "spark.hadoop.fs.s3a.committer.magic.enabled": "true",
        "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3": f"{_HADOOP_COMMIT}.S3ACommitterFactory",
        "spark.sql.sources.commitProtocolClass": f"{_SPARK_CLOUD}.PathOutputCommitProtocol",
        "spark.sql.parquet.output.committer.class": f"{_SPARK_CLOUD}.BindingParquetOutputCommitter",
        # Hadoop 3.3 deletes the markers of the folders above each file it writes; in a bucket that keeps versions each
        # of these requests leaves a delete marker for good. Hadoop 3.4, and so EMR, keeps them too.
        "spark.hadoop.fs.s3a.directory.marker.retention": "keep",
    }
    if region:
        conf["spark.hadoop.fs.s3a.endpoint.region"] = region
    if endpoint_url:
        conf["spark.hadoop.fs.s3a.endpoint"] = endpoint_url
        conf["spark.hadoop.fs.s3a.path.style.access"] = "true"
        conf["spark.hadoop.fs.s3a.connection.ssl.enabled"] = str(urlsplit(endpoint_url).scheme == "https").lower()
    return conf


def s3a_class_path(jars: Sequence[Path], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variable that puts jars behind Spark's own on the class path of the one local JVM.

    In front of them (`spark.driver.extraClassPath`) they would keep Java from its archive of Spark's classes, which
    doubles the CPU of a start; and with `spark.jars` each start would copy 280 MB.

    Args:
        jars: as `find_s3a_jars` returns them; none changes nothing.
        environment: whose class path they are added to.
    """
    before = environment.get("SPARK_DIST_CLASSPATH")
    parts = [*([before] if before else []), *map(str, jars)]
    return {"SPARK_DIST_CLASSPATH": ":".join(parts)} if jars else {}


def s3a_conf_here(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `s3a_conf` for the S3 that boto3 uses in this environment, with the encryption of this process."""
    conf = s3a_conf(
        endpoint_url=environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL"),
        region=region_environment().get(REGION_VARIABLE) or environment.get(REGION_VARIABLE),
    )
    return {**conf, **encryption().spark_conf}


def find_s3a_jars(pyspark: Path, folder: Path | None = None) -> tuple[Path, ...]:
    """Return the jars with which this Spark writes `s3://`, in the matching versions.

    Args:
        pyspark: folder of the installed pyspark.
        folder: where they are; None for the folder of `make s3a-jars` below the current folder.

    Raises:
        CdiError: LAUNCH_FAILED where they are missing or belong to another Spark; `next_step` says what to run.
    """
    hadoop = _version_of(pyspark / "jars", r"hadoop-client-api-(.+)\.jar")
    spark = _version_of(pyspark / "jars", r"spark-core_[\d.]+-(.+)\.jar")
    line = ".".join(spark.split(".")[:2])
    next_step = "Run make s3a-jars" + ("" if line == "3.5" else f" SPARK={line}")
    if folder is None:
        folder = (JARS_FOLDER / f"spark-{line}").absolute()
        next_step += "."
    else:
        next_step += f", or correct CDI_S3A_JARS={folder}."
    needed = {
        f"S3A of Hadoop {hadoop}": f"hadoop-aws-{hadoop}.jar",
        "Amazon's SDK": "aws-java-sdk-bundle-*.jar" if hadoop.startswith("3.3.") else "bundle-*.jar",
        f"the committers of Spark {line}": f"spark-hadoop-cloud_*-{line}.*.jar",
    }
    missing = [f"{what} ({name})" for what, name in needed.items() if not any(folder.glob(name))]
    if missing:
        cause = f"Spark {spark} cannot write tables to S3: {folder} lacks {' and '.join(missing)}."
        raise CdiError(FailureClass.LAUNCH_FAILED, cause, next_step=next_step)
    if ":" in str(folder):
        cause = f"Java separates paths by a colon: {folder} cannot be on its class path."
        raise CdiError(FailureClass.LAUNCH_FAILED, cause, next_step="Set CDI_S3A_JARS to a folder without a colon.")
    return tuple(sorted(folder.glob("*.jar")))


def _version_of(jars: Path, pattern: str) -> str:
    for jar in jars.glob("*.jar"):
        match = re.fullmatch(pattern, jar.name)
        if match:
            return match[1]
    cause = f"Spark is incomplete: {jars} has no {pattern}."
    raise CdiError(
        FailureClass.LAUNCH_FAILED, cause, next_step="Install it again, in the checkout: pip install '.[spark]'."
    )
