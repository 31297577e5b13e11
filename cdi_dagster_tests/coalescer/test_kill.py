"""kill -9 at every single storage operation: no record is lost or doubled, and the next run finishes."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cdi_dagster.coalescer import coalesce
from cdi_dagster.coalescer.marker import MarkerState, read_marker
from cdi_dagster.coalescer.shard import WHOLE_DAY, Shard
from cdi_dagster.core import member_index
from cdi_dagster.core.storage_keys import coalescer_marker_key, member_indexes_prefix
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.coalescer.days import (
    DAY,
    PREFIX,
    indexed,
    ingested,
    names,
    put_raw,
    put_small_day,
    small_day_records,
)
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.s3_server import REGION, new_s3_storage, s3_endpoint
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.kill

COALESCED = ["0_0_14.jsonl.gz", "0_20_29.jsonl.gz", "1_100_114.jsonl.gz"]
MARKER = coalescer_marker_key(AUDIT.on(DAY))
INDEXES = member_indexes_prefix(AUDIT.on(DAY))


@pytest.fixture(autouse=True)
def _every_object_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_index, "GROUP_BYTES", 1)  # so each gets an index


class Killer:
    """A storage that kills its process before or after one of its operations; deletes go key by key."""

    def __init__(self, storage: Storage, operations: int) -> None:
        self._storage = storage
        self._left = operations
        self._lock = threading.Lock()

    def _step(self) -> None:
        with self._lock:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._storage, name)
        if not callable(real):
            return real

        def operation(*arguments: Any, **options: Any) -> Any:
            self._step()
            result = real(*arguments, **options)
            self._step()
            return _KilledUpload(result, self._step) if name == "upload" else result

        return operation

    def delete(self, keys: Any) -> None:
        for each in keys:
            self._step()
            self._storage.delete([each])
        self._step()


class _KilledUpload:
    def __init__(self, upload: Any, step: Callable[[], None]) -> None:
        self._upload = upload
        self._step = step

    def __enter__(self) -> "_KilledUpload":
        return self

    def __exit__(self, *error: Any) -> None:
        self._upload.__exit__(*error)

    def write(self, data: bytes) -> int:
        self._step()
        return int(self._upload.write(data))

    def complete(self) -> Any:
        self._step()
        stored = self._upload.complete()
        self._step()
        return stored


def run_and_kill(storage: Storage, operations: int, *, minutes_later: int, shard: Shard = WHOLE_DAY) -> bool:
    """Coalesce in a child process that is killed after so many operations; return whether it was."""
    child = os.fork()
    if child == 0:
        try:
            killer: Any = Killer(storage, operations)
            coalesce(killer, AUDIT.on(DAY), shard=shard, clock=later(minutes_later))
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def later(minutes: int) -> Callable[[], datetime]:
    """A clock past the lease of whoever was killed before."""
    return lambda: datetime.now(UTC) + timedelta(minutes=minutes)


def require_finished(storage: Storage, *, minutes_later: int) -> None:
    summary = coalesce(storage, AUDIT.on(DAY), clock=later(minutes_later))
    assert summary.failures == ()
    assert names(storage) == COALESCED
    assert set(summary.merged) <= {f"{PREFIX}data.businessAudit_{name}" for name in indexed(storage)}
    assert ingested(storage) == small_day_records()


def test_killed_at_any_operation_nothing_is_lost_or_doubled_and_the_next_run_finishes(tmp_path: Path) -> None:
    operations = 0
    while True:
        storage = open_storage((tmp_path / str(operations)).as_uri())
        put_small_day(storage)
        killed = run_and_kill(storage, operations, minutes_later=0)
        assert ingested(storage) == small_day_records(), operations
        assert set(indexed(storage)) >= (set() if killed else set(COALESCED)), operations
        require_finished(storage, minutes_later=10)
        assert not list((tmp_path / str(operations) / ".cdi-staging").rglob("uploads/*/*")), operations
        if not killed:
            break
        operations += 1
    assert operations > 50


def test_a_shard_killed_at_any_operation_loses_and_doubles_nothing_whatever_runs_next(tmp_path: Path) -> None:
    shards = [Shard(index=index, count=2) for index in range(2)]
    for operations in range(0, 60, 3):
        storage = open_storage((tmp_path / str(operations)).as_uri())
        put_small_day(storage)
        killed = run_and_kill(storage, operations, minutes_later=0, shard=shards[0])
        assert ingested(storage) == small_day_records(), operations
        assert coalesce(storage, AUDIT.on(DAY), shard=shards[1]).succeeded
        assert ingested(storage) == small_day_records(), operations
        if operations % 2:
            require_finished(storage, minutes_later=10)  # by the whole day
        else:
            assert coalesce(storage, AUDIT.on(DAY), shard=shards[0], clock=later(10)).succeeded
            assert names(storage) == COALESCED
            assert ingested(storage) == small_day_records()
        assert not list((tmp_path / str(operations) / ".cdi-staging").rglob("uploads/*/*")), operations
        if not killed:
            break
    assert operations > 30


def test_killed_again_and_again_it_still_finishes(tmp_path: Path) -> None:
    random_points = random.Random(5)
    for world in range(8):
        storage = open_storage((tmp_path / str(world)).as_uri())
        put_small_day(storage)
        for attempt in range(1, 5):
            run_and_kill(storage, random_points.randrange(70), minutes_later=10 * attempt)
            assert ingested(storage) == small_day_records(), (world, attempt)
        require_finished(storage, minutes_later=100)


def let_the_lease_end(storage: Storage) -> None:
    """Date the last heartbeat back: no test has to wait for a lease."""
    found = read_marker(storage, MARKER)
    assert found is not None
    silent = replace(found[0], heartbeat_at=found[0].heartbeat_at - timedelta(hours=1))
    storage.write(MARKER, json.dumps(silent.to_json()).encode())


def test_the_program_killed_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    storage = open_storage((tmp_path / "corporate").as_uri())
    for first in range(0, 1500, 5):
        put_raw(storage, first, first + 4)
    before = ingested(storage)
    command = [sys.executable, "-m", "cdi_dagster.coalescer", "--corporate-root", storage.root]
    command += ["--collection", AUDIT.id, "--storage-day", str(DAY), "--max-objects", "10"]
    delays = random.Random(3)
    for _ in range(3):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def has_begun(pid: int = child.pid) -> bool:
            found = read_marker(storage, MARKER)
            return found is not None and found[0].writer.split("#")[0].endswith(f":{pid}")

        wait_until(has_begun, f"process {child.pid} has begun", seen=child.poll, pause_seconds=0.005)
        time.sleep(delays.uniform(0, 0.4))
        child.kill()
        child.wait()
        assert ingested(storage) == before
        let_the_lease_end(storage)
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert len(names(storage)) == 30
    assert ingested(storage) == before


# The program, with a pause after each batch: it would be at work for a minute.
_UNHURRIED = """
import time
from cdi_dagster.coalescer import command
coalesce = command.coalesce_by_processes
command.coalesce_by_processes = lambda progress, **options: coalesce(progress=lambda state: time.sleep(0.3), **options)
command.coalesce_command()
"""


def test_sigterm_writes_failed_at_once(tmp_path: Path) -> None:
    storage = open_storage((tmp_path / "corporate").as_uri())
    for first in range(0, 2000, 5):
        put_raw(storage, first, first + 4)
    command = [sys.executable, "-c", _UNHURRIED, "--corporate-root", storage.root]
    command += ["--collection", AUDIT.id, "--storage-day", str(DAY), "--max-objects", "2"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: read_marker(storage, MARKER), "it has begun", seen=child.poll)
    child.terminate()
    assert child.wait(PATIENCE_SECONDS) == 1
    found = read_marker(storage, MARKER)
    assert found is not None
    assert found[0].state is MarkerState.FAILED
    assert len(ingested(storage)) == 2000


_S3_CHILD = """
import sys
from cdi_dagster.coalescer import coalesce
from cdi_dagster.core import member_index
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.coalescer.days import DAY
from cdi_dagster_tests.coalescer.test_kill import Killer
from cdi_dagster_tests.collections import AUDIT
root, endpoint, region, operations = sys.argv[1:]
member_index.GROUP_BYTES = 1
coalesce(Killer(open_storage(root, endpoint_url=endpoint, region_name=region), int(operations)), AUDIT.on(DAY))
"""


@pytest.mark.parametrize("operations", [12, 30, 41])
def test_killed_on_s3_nothing_is_lost_or_doubled_and_the_next_run_finishes(operations: int) -> None:
    storage = new_s3_storage()
    put_small_day(storage)
    child = [sys.executable, "-c", _S3_CHILD, storage.root, s3_endpoint(), REGION, str(operations)]
    assert subprocess.run(child, check=False).returncode == -signal.SIGKILL
    assert ingested(storage) == small_day_records()
    require_finished(storage, minutes_later=10)
    assert all(stored.key.startswith((PREFIX, MARKER, INDEXES)) for stored in storage.list(""))
