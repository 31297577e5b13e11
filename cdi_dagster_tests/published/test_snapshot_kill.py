"""A run killed before any of its writes leaves a snapshot as before or complete, and the next run completes it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cdi_dagster.core.storage_keys import PUBLICATIONS_PREFIX, SUCCESS_MARK, snapshot_prefix, snapshot_staging_prefix
from cdi_dagster.published.snapshots import begin_snapshot, read_snapshot_mark
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.published.killed_snapshot import SNAPSHOT, publish_run
from cdi_dagster_tests.published.test_kill import grouped_files, kill_at_every_step

pytestmark = pytest.mark.kill

PREFIX = snapshot_prefix(SNAPSHOT)


def published_run(storage: Storage, when: str) -> str:
    """The run whose snapshot is there, whole: mark and files agree."""
    mark = read_snapshot_mark(storage, SNAPSHOT)
    assert mark is not None, when
    files = {part.key: part.size_bytes for part in mark.parts}
    stored = {each.key: each.size_bytes for each in storage.list(PREFIX)}
    assert {key: size for key, size in stored.items() if not key.endswith(SUCCESS_MARK)} == files, when
    return mark.correlation_id


def require_settled_by_the_next(storage: Storage, step: int, when: str) -> None:
    """The next run, here every third one whole, leaves nothing behind."""
    if step % 3:
        begin_snapshot(storage, SNAPSHOT)
    else:
        publish_run(storage, 3 if step % 2 else 2)
        assert published_run(storage, when) == ("run-3" if step % 2 else "run-2")
    assert list(storage.list(snapshot_staging_prefix(SNAPSHOT))) == [], when


def test_a_snapshot_in_a_folder_is_as_before_or_complete_wherever_its_run_is_killed(tmp_path: Path) -> None:
    template = f"file://{tmp_path}/{{step}}"
    outcomes = []
    for step in range(kill_at_every_step(template, module="killed_snapshot")):
        storage, when = open_storage(template.format(step=step)), f"killed before step {step}"
        outcomes.append(published_run(storage, when))
        require_settled_by_the_next(storage, step, when)
        assert grouped_files(storage) == [], when
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {"run-1", "run-2"}
    assert len(outcomes) > 30


def test_a_snapshot_on_s3_is_as_before_complete_or_unmarked_wherever_its_run_is_killed(
    make_bucket: Callable[..., str],
) -> None:
    bucket = make_bucket()
    template = f"s3://{bucket}/{{step}}"
    outcomes = []
    for step in range(kill_at_every_step(template, module="killed_snapshot")):
        storage, when = open_storage(template.format(step=step)), f"killed before step {step}"
        if read_snapshot_mark(storage, SNAPSHOT) is None:  # between the first new file and the mark: no base for anyone
            storage.recover(PREFIX)
        outcomes.append(published_run(storage, when))
        require_settled_by_the_next(storage, step, when)
        own = [each.key for each in open_storage(f"s3://{bucket}").list(f"{step}/") if PUBLICATIONS_PREFIX in each.key]
        assert own == [], when
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {"run-1", "run-2"}
