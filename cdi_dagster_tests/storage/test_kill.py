"""A publication killed at every single step leaves the published prefix whole or as before."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.storage.killed_publisher import PREFIX, publish_version, run, version

pytestmark = pytest.mark.kill


def publish_and_die(root: str, number: int, step: int, *, swap_works: bool = True) -> bool:
    """Publish in a child that kills itself before the step; return whether it was killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cdi_dagster_tests.storage.killed_publisher", "boto3"])
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    child = context.Process(target=run, args=(root, number, step, swap_works, aws))
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def content(storage: Storage) -> dict[str, bytes]:
    return {stored.key: storage.read(stored.key) for stored in storage.list(PREFIX)}


def whole(number: int) -> dict[str, bytes]:
    return {f"{PREFIX}_SUCCESS": b"mark %d" % number} | version(number)


def write_all(storage: Storage, objects: dict[str, bytes]) -> None:
    for key, data in objects.items():
        storage.write(key, data)


def left_in_staging(root: str) -> list[str]:
    staging = Path(root.removeprefix("file://")) / ".cdi-staging"
    return [str(path) for path in staging.rglob("*") if path.is_file() and path.parent.name != "locks"]


@pytest.mark.parametrize("swap_works", [True, False])
def test_a_folder_is_whole_or_as_before_wherever_its_publisher_is_killed(tmp_path: Path, swap_works: bool) -> None:
    outcomes = []
    for step in range(200):
        root = f"file://{tmp_path}/{step}"
        storage = open_storage(root)
        write_all(storage, whole(1))
        killed = publish_and_die(root, 2, step, swap_works=swap_works)
        if swap_works:
            assert content(storage) in (whole(1), whole(2)), f"killed before step {step}"
        else:
            assert content(storage) in (whole(1), whole(2), {}), f"killed before step {step}"
        storage.recover(PREFIX)
        outcome = content(storage)
        assert outcome in (whole(1), whole(2)), f"killed before step {step}, recovered"
        outcomes.append(outcome == whole(2))
        storage.discard(PREFIX, group="run-2")
        assert left_in_staging(root) == [], f"killed before step {step}"
        publish_version(storage, 3)
        assert content(storage) == whole(3)
        if not killed:
            break
    assert outcomes == sorted(outcomes), "once decided it stays decided"
    assert outcomes[0] is False
    assert outcomes[-1] is True
    assert len(outcomes) > 15


def test_a_first_publication_is_whole_or_absent_wherever_its_publisher_is_killed(tmp_path: Path) -> None:
    outcomes = []
    for step in range(200):
        root = f"file://{tmp_path}/{step}"
        killed = publish_and_die(root, 1, step)
        outcome = content(open_storage(root))
        assert outcome in ({}, whole(1)), f"killed before step {step}"
        outcomes.append(bool(outcome))
        if not killed:
            break
    assert outcomes == sorted(outcomes)
    assert outcomes[-1] is True


def test_readers_who_respect_success_see_a_whole_prefix_wherever_its_s3_publisher_is_killed(
    make_bucket: Callable[..., str],
) -> None:
    bucket = make_bucket()
    client = boto3.client("s3")
    outcomes = []
    for step in range(200):
        root = f"s3://{bucket}/{step}"
        storage = open_storage(root)
        write_all(storage, whole(1))
        killed = publish_and_die(root, 2, step)
        seen = content(storage)
        if f"{PREFIX}_SUCCESS" in seen:
            assert seen in (whole(1), whole(2)), f"killed before step {step}"
        storage.recover(PREFIX)
        outcome = content(storage)
        assert outcome in (whole(1), whole(2)), f"killed before step {step}, recovered"
        outcomes.append(outcome == whole(2))
        storage.discard(PREFIX, group="run-2")
        own = client.list_objects_v2(Bucket=bucket, Prefix=f"{step}/_publications/").get("Contents", [])
        assert own == [], f"killed before step {step}"
        if not killed:
            break
    assert outcomes == sorted(outcomes), "once decided it stays decided"
    assert outcomes[0] is False
    assert outcomes[-1] is True
    assert len(outcomes) > 15
    left = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    for upload in left:  # begun, but killed before its note was written: it holds no part
        assert "Parts" not in client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def test_a_decided_publication_whose_uploads_were_aborted_is_taken_back(make_bucket: Callable[..., str]) -> None:
    bucket = make_bucket()
    client = boto3.client("s3")
    taken_back = 0
    for step in range(11, 16):  # from just after the journal to just before the last completion
        root = f"s3://{bucket}/{step}"
        storage = open_storage(root)
        write_all(storage, whole(1))
        assert publish_and_die(root, 2, step)
        for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            taken_back += 1
        storage.recover(PREFIX)
        assert content(storage) == whole(1), f"killed before step {step}"
    assert taken_back > 5
