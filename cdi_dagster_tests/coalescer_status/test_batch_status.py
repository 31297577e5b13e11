"""The Batch source against a real HTTP server that speaks AWS Batch (moto), and against failures."""

import json
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.batch.models import batch_backends
from moto.server import ThreadedMotoServer

from cdi_dagster.coalescer_status.batch_jobs import QUEUES
from cdi_dagster.coalescer_status.batch_status import BatchCoalescerStatus
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.storage import Roots, open_roots
from cdi_dagster_tests.clock import clock_at
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.waiting import reserved_port

REGION = "eu-west-2"
ACCOUNT = "123456789012"
CLIENT = {"region_name": REGION, "aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


class Batch:
    """Two queues on a loopback server; the test says which state a job has."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.calls: list[str] = []
        client = self.client()
        iam = boto3.client("iam", endpoint_url=endpoint, **CLIENT)
        role = iam.create_role(RoleName=f"batch-{uuid.uuid4().hex}", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        environment = client.create_compute_environment(
            computeEnvironmentName="environment", type="UNMANAGED", state="ENABLED", serviceRole=role
        )["computeEnvironmentArn"]
        for queue in QUEUES:
            client.create_job_queue(
                jobQueueName=queue,
                state="ENABLED",
                priority=1,
                computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment}],
            )
        client.register_job_definition(
            jobDefinitionName="coalescer",
            type="container",
            containerProperties={"image": "coalescer", "vcpus": 1, "memory": 128, "command": ["true"]},
        )
        self._client = client

    def client(self) -> Any:
        client = boto3.client("batch", endpoint_url=self.endpoint, **CLIENT)
        client.meta.events.register("before-call.batch", lambda model, **_: self.calls.append(model.name))
        return client

    def submit(
        self,
        status: str,
        *,
        queue: str = QUEUES[0],
        name: str = "run_coalescer_batch_storage_audit",
        children: int | None = None,
    ) -> str:
        job_id = self._client.submit_job(
            **({"arrayProperties": {"size": children}} if children else {}),
            jobName=name,
            jobQueue=queue,
            jobDefinition="coalescer",
            parameters={"s3-prefix": "corporate_storage/ucfs_audit", "date-to-add": "yesterday", "partition": "-1"},
        )["jobId"]
        self.set_status(job_id, status)
        return str(job_id)

    def forget(self) -> None:
        """List no job any more, as Batch does after a week."""
        for queue in batch_backends[ACCOUNT][REGION]._job_queues.values():
            queue.jobs.clear()

    def set_status(self, job_id: str, status: str) -> None:
        job = batch_backends[ACCOUNT][REGION].get_job_by_id(job_id)
        job.status = status
        job.job_stopped = status in ("SUCCEEDED", "FAILED")
        job.job_stopped_at = datetime.now(UTC)


@pytest.fixture
def batch() -> Iterator[Batch]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    simple = json.dumps({"batch": {"use_docker": False}}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/config", data=simple, method="POST"))
    # Only Batch is emptied: moto's other services are shared with the other tests of this process.
    batch_backends[ACCOUNT][REGION].reset()
    yield Batch(endpoint)
    server.stop()


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return open_roots((tmp_path / "corporate").as_uri(), (tmp_path / "published").as_uri())


@pytest.fixture(autouse=True)
def mid_morning() -> Iterator[None]:
    """Whatever the hour is: midnight must not come between a job and the question."""
    with clock_at(datetime.now(UTC).replace(hour=10, minute=0)):
        yield


def yesterday() -> Any:
    return datetime.now(UTC).date() - timedelta(days=1)


def test_a_day_without_jobs_has_not_started(batch: Batch, roots: Roots) -> None:
    assert BatchCoalescerStatus(batch.client, roots).status(AUDIT.on(yesterday())).state is CoalescerState.NOT_STARTED


@pytest.mark.parametrize("queue", QUEUES)
def test_a_job_is_followed_from_submission_to_success(batch: Batch, queue: str, roots: Roots) -> None:
    source = BatchCoalescerStatus(batch.client, roots, cache_seconds=0)
    job_id = batch.submit("RUNNABLE", queue=queue)
    seen = [source.status(AUDIT.on(yesterday())).state]
    for status in ("RUNNING", "SUCCEEDED"):
        batch.set_status(job_id, status)
        seen.append(source.status(AUDIT.on(yesterday())).state)
    assert seen == [CoalescerState.RUNNING, CoalescerState.RUNNING, CoalescerState.COMPLETE]


def test_a_retry_decides_over_the_failure_before_it(batch: Batch, roots: Roots) -> None:
    source = BatchCoalescerStatus(batch.client, roots, cache_seconds=0)
    batch.submit("FAILED")
    assert source.status(AUDIT.on(yesterday())).state is CoalescerState.FAILED
    batch.submit("SUCCEEDED", queue=QUEUES[1])
    assert source.status(AUDIT.on(yesterday())).state is CoalescerState.COMPLETE


def test_many_requests_within_the_cache_time_read_the_jobs_once(batch: Batch, roots: Roots) -> None:
    for _ in range(3):
        batch.submit("SUCCEEDED")
    source = BatchCoalescerStatus(batch.client, roots, cache_seconds=60)
    batch.calls.clear()
    for days in range(1, 101):
        source.status(AUDIT.on(datetime.now(UTC).date() - timedelta(days=days)))
    assert batch.calls.count("ListJobs") == 14
    assert batch.calls.count("DescribeJobs") == 1


def test_ended_jobs_are_described_once(batch: Batch, roots: Roots) -> None:
    batch.submit("SUCCEEDED")
    source = BatchCoalescerStatus(batch.client, roots, cache_seconds=0)
    source.status(AUDIT.on(yesterday()))
    batch.calls.clear()
    assert source.status(AUDIT.on(yesterday())).state is CoalescerState.COMPLETE
    assert "DescribeJobs" not in batch.calls


def test_a_missing_queue_is_unknown_with_what_to_check(batch: Batch, roots: Roots) -> None:
    status = BatchCoalescerStatus(batch.client, roots, queues=["no-such-queue"]).status(AUDIT.on(yesterday()))
    assert status.state is CoalescerState.UNKNOWN
    assert "no-such-queue" in status.reason


def test_an_unreachable_batch_is_unknown(roots: Roots) -> None:
    with reserved_port() as port:  # nobody listens on it

        def make_client() -> Any:
            config = Config(retries={"total_max_attempts": 1}, connect_timeout=1)
            return boto3.client("batch", endpoint_url=f"http://127.0.0.1:{port}", config=config, **CLIENT)

        status = BatchCoalescerStatus(make_client, roots).status(AUDIT.on(yesterday()))
    assert status.state is CoalescerState.UNKNOWN
    assert "Check the batch:ListJobs" in status.reason


def test_an_array_job_is_followed_by_its_children_and_its_failure_names_the_shard(batch: Batch, roots: Roots) -> None:
    source = BatchCoalescerStatus(batch.client, roots, cache_seconds=0)

    def status() -> CoalescerStatus:
        return source.status(AUDIT.on(yesterday()))

    array = batch.submit("PENDING", children=3)
    for index, of_child in enumerate(("SUCCEEDED", "RUNNING", "RUNNABLE")):
        batch.set_status(f"{array}:{index}", of_child)
    assert status().state is CoalescerState.RUNNING
    assert "1 of 3 shards done" in status().reason
    for index, of_child in ((1, "FAILED"), (2, "RUNNING")):
        batch.set_status(f"{array}:{index}", of_child)
    batch.set_status(array, "FAILED")
    assert status().state is CoalescerState.RUNNING  # a child still works
    batch.set_status(f"{array}:2", "SUCCEEDED")
    assert status().state is CoalescerState.FAILED
    assert f"(job {array}, shard 1/3)" in status().reason
    again = batch.submit("PENDING", children=3)
    for index in range(3):
        batch.set_status(f"{again}:{index}", "SUCCEEDED")
    batch.set_status(again, "SUCCEEDED")
    assert status().state is CoalescerState.COMPLETE
