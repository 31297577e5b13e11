"""kill -9 at every request of a sharded run on S3: nothing lost or doubled, a true marker, a next run that finishes."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from cdi_dagster.coalescer import coalesce
from cdi_dagster.coalescer.claim import DEFAULT_LEASE_SECONDS
from cdi_dagster.coalescer.shard import WHOLE_DAY, Shard
from cdi_dagster.coalescer_status.marker_status import MarkerCoalescerStatus
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.coalescer.days import DAY, ingested, names
from cdi_dagster_tests.coalescer.killed_shards import COALESCED, SHARDS, records
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.s3_server import REGION, new_s3_storage, s3_endpoint

pytestmark = pytest.mark.kill

OTHER_COUNT = tuple(Shard(index=index, count=3) for index in range(3))
NEXT_RUNS = [SHARDS, (WHOLE_DAY,), SHARDS[::-1], (WHOLE_DAY,), OTHER_COUNT, (WHOLE_DAY,), SHARDS]


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> str:
    """Roots in one bucket, on a server that takes small parts."""
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    return f"{new_s3_storage().root}/{{step}}"


def an_hour_later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def status(storage: Storage, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> CoalescerStatus:
    return MarkerCoalescerStatus(storage, lease_seconds=DEFAULT_LEASE_SECONDS, clock=clock).status(AUDIT.on(DAY))


def require_nothing_lost_and_a_true_marker(storage: Storage) -> CoalescerState:
    """Return the state that the marker has left, once its lease is over."""
    assert ingested(storage) == records()
    found = status(storage, an_hour_later)
    if found.state is CoalescerState.COMPLETE:
        assert names(storage) == COALESCED
    else:
        assert found.state in (CoalescerState.NOT_STARTED, CoalescerState.FAILED), found.reason
    return found.state


def require_finished(storage: Storage, shards: tuple[Shard, ...]) -> None:
    for shard in shards:
        assert coalesce(storage, AUDIT.on(DAY), shard=shard, clock=an_hour_later).failures == ()
    assert names(storage) == COALESCED
    assert ingested(storage) == records()
    assert status(storage, an_hour_later).state is CoalescerState.COMPLETE


def require_nothing_left_over(template: str) -> None:
    bucket = template.removeprefix("s3://").partition("/")[0]
    client = boto3.client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    left = [row["Key"] for page in pages for row in page["Contents"] if "/uploads/" in row["Key"]]
    assert left == []
    for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        # Begun, but killed before its note was written: it holds no part.
        assert "Parts" not in client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def test_killed_at_any_request_nothing_is_lost_or_doubled_and_the_next_run_finishes(template: str) -> None:
    command = [sys.executable, "-m", "cdi_dagster_tests.coalescer.killed_shards", template]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps = range(int(done.stdout))
    assert len(steps) > 40
    left: Counter[CoalescerState] = Counter()
    for step in steps:
        storage = open_storage(template.format(step=step))
        left[require_nothing_lost_and_a_true_marker(storage)] += 1
        require_finished(storage, NEXT_RUNS[step % len(NEXT_RUNS)])
    assert set(left) == {CoalescerState.NOT_STARTED, CoalescerState.FAILED, CoalescerState.COMPLETE}
    require_nothing_left_over(template)
