"""Spark jobs as processes of their own behind an S3 that cuts connections, or kills the job, at a chosen request."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from cdi_dagster.core.spark_jobs import SparkJob
from cdi_dagster.local_spark.java import find_java
from cdi_dagster.local_spark.metastore import local_metastore_conf
from cdi_dagster.local_spark.spark_submit import (
    SparkProcessConfig,
    s3a_jars,
    spark_environment,
    spark_submit_command,
)
from cdi_dagster.storage import Storage
from cdi_dagster_tests.processes import kill_session
from cdi_dagster_tests.s3_server import REGION, s3_endpoint
from cdi_dagster_tests.storage.faulty_s3 import Proxy
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

Chosen = Callable[[str, str], bool]
"""Says of a method and a path whether it is the request that is meant."""


@dataclass
class Once:
    """What happens at the first request that is meant: the connection is cut in its answer, or the job is killed.

    Attributes:
        chosen: which request.
        body_bytes: of the answer to let through before the connection is cut.
        session: of the processes to kill; None kills nothing.
        happened: whether it did.
    """

    chosen: Chosen
    body_bytes: int = 0
    session: int | None = None
    happened: bool = False

    def __call__(self, method: str, path: str, count: int) -> int | None:
        """As `Proxy` asks it, once S3 has carried the request out."""
        if self.happened or not self.chosen(method, path):
            return None
        self.happened = True
        if self.session is not None:
            kill_session(self.session)
        return self.body_bytes


def spark_config(folder: Path) -> SparkProcessConfig:
    """Return how Spark runs in these tests: two cores, four tries a task, metastore and logs in the folder."""
    conf = local_metastore_conf(folder / "metastore")
    return SparkProcessConfig(work_folder=folder / "work", master="local[2,4]", driver_memory="1g", conf=conf)


def killed_at(chosen: Chosen, job: SparkJob, arguments: Sequence[str], *, config: SparkProcessConfig) -> None:
    """Run a job as the local launcher does, and kill it whole the moment S3 has carried out the chosen request."""
    kill = Once(chosen)
    with Proxy(s3_endpoint(), kill) as proxy:
        log = config.work_folder / "killed.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output, s3_at(proxy.url):
            process = subprocess.Popen(
                spark_submit_command(job, arguments, config=config),
                env=spark_environment(find_java().path, s3a_jars(job, arguments, config=config)),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            kill.session = process.pid
            try:
                process.wait(2 * PATIENCE_SECONDS)
            finally:
                kill_session(process.pid)
        assert kill.happened, f"the job ended before it could be killed:\n{log.read_text()[-3000:]}"


@contextmanager
def s3_at(url: str) -> Iterator[None]:
    """Let S3 be at this address for what is started meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        yield


def keep_versions(storage: Storage) -> None:
    """Let a storage's bucket keep versions."""
    _client().put_bucket_versioning(Bucket=_bucket(storage), VersioningConfiguration={"Status": "Enabled"})


def unfinished_uploads(storage: Storage) -> list[str]:
    """Return the keys of uploads that hold bytes and were neither completed nor aborted.

    One without a part may stay of a process that was killed right after it began it: it stores and costs nothing.
    """
    bucket = _bucket(storage)
    begun = _client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return [
        upload["Key"]
        for upload in begun
        if _client().list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]).get("Parts")
    ]


def _bucket(storage: Storage) -> str:
    return storage.root.removeprefix("s3://")


def _client() -> Any:
    return boto3.client("s3", endpoint_url=s3_endpoint(), region_name=REGION)
