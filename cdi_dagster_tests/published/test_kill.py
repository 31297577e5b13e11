"""A run killed before any of its writes leaves the day as before or complete, and the next run completes it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.storage_keys import PUBLICATIONS_PREFIX, daily_prefix
from cdi_dagster.published.counts import count_mismatches
from cdi_dagster.published.publish import discard_uploads
from cdi_dagster.published.read import read_publication
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.published.killed_day import DAY, ROWS_DAY, publish_run

pytestmark = pytest.mark.kill


def kill_at_every_step(template: str, *arguments: str, module: str = "killed_day") -> int:
    done = subprocess.run(
        [sys.executable, "-m", f"cdi_dagster_tests.published.{module}", template, "0", "400", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def published_run(storage: Storage, when: str, day: CollectionDay) -> str:
    """The run whose publication is there, whole: mark, report, pinned input, parts and kept rejects agree."""
    publication = read_publication(storage, day)
    assert publication is not None, when
    assert count_mismatches(publication, storage.list(daily_prefix(day))) == [], when
    prefix = publication.report.rejects_prefix
    assert prefix is not None, when
    assert [stored.key.removeprefix(prefix)[:5] for stored in storage.list(prefix)] == ["_SUCC", "part-"], when
    return publication.mark.correlation_id


def grouped_files(storage: Storage) -> list[str]:
    """What is staged of any run; a small write that was killed has no group and holds no records."""
    staging = Path(storage.root.removeprefix("file://")) / ".cdi-staging"
    found = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
    return [str(path) for path in found if path.parts[0] != "locks" and path.parts[:2] != ("uploads", "_")]


@pytest.mark.parametrize("day", [DAY, ROWS_DAY], ids=["records", "rows"])
def test_a_day_in_a_folder_is_as_before_or_complete_wherever_its_run_is_killed(
    tmp_path: Path, day: CollectionDay
) -> None:
    template = f"file://{tmp_path}/{{step}}"
    outcomes = []
    for step in range(kill_at_every_step(template, day.collection.id)):
        storage, when = open_storage(template.format(step=step)), f"killed before step {step}"
        outcomes.append(published_run(storage, when, day))
        discard_uploads(storage, day, group=None)
        assert grouped_files(storage) == [], when
        publish_run(storage, 3 if step % 2 else 2, day)
        assert published_run(storage, when, day) == ("run-3" if step % 2 else "run-2")
        assert grouped_files(storage) == [], when
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {"run-1", "run-2"}
    assert len(outcomes) > 30


def test_a_day_on_s3_is_as_before_complete_or_absent_wherever_its_run_is_killed(
    make_bucket: Callable[..., str],
) -> None:
    day = DAY  # of rows it is the same: a bucket has no folders
    bucket = make_bucket()
    client = boto3.client("s3")
    template = f"s3://{bucket}/{{step}}"
    outcomes = []
    for step in range(kill_at_every_step(template, day.collection.id)):
        storage, when = open_storage(template.format(step=step)), f"killed before step {step}"
        if read_publication(storage, day) is None:  # between the first new part and the mark
            storage.recover(daily_prefix(day))
        outcomes.append(published_run(storage, when, day))
        publish_run(storage, 3 if step % 2 else 2, day)
        assert published_run(storage, when, day) == ("run-3" if step % 2 else "run-2")
        own = client.list_objects_v2(Bucket=bucket, Prefix=f"{step}/{PUBLICATIONS_PREFIX}").get("Contents", [])
        assert own == [], when
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {"run-1", "run-2"}
    for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        # Begun, but killed before its note was written: it holds no part.
        assert "Parts" not in client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
