"""A day coalesced by several processes: what one of them suffers, no record and no other shard does."""

import json
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from cdi_dagster.coalescer import CoalesceProgress
from cdi_dagster.coalescer.claim import Claim
from cdi_dagster.coalescer.command import coalesce_command
from cdi_dagster.coalescer.marker import Marker, MarkerState, read_marker
from cdi_dagster.coalescer.processes import coalesce_by_processes
from cdi_dagster.coalescer.shard import Shard
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import coalescer_marker_key
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.coalescer.days import DAY, ingested, names, put_raw, put_small_day, small_day_records
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.kill

COALESCED = ["0_0_14.jsonl.gz", "0_20_29.jsonl.gz", "1_100_114.jsonl.gz"]


def marker(storage: Storage) -> Marker | None:
    found = read_marker(storage, coalescer_marker_key(AUDIT.on(DAY)))
    return found[0] if found else None


def an_hour_later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def arguments(storage: Storage) -> list[str]:
    return ["--corporate-root", storage.root, "--collection", AUDIT.id, "--storage-day", str(DAY)]


def test_a_day_is_merged_by_two_processes_as_by_one(storage: Storage) -> None:
    put_small_day(storage)
    seen: list[CoalesceProgress] = []
    summary = coalesce_by_processes(storage, AUDIT.on(DAY), processes=2, progress=seen.append)
    assert summary.succeeded
    assert (summary.before.objects, summary.after.objects, summary.after.offsets) == (8, 3, 40)
    assert len(summary.merged) == 3
    assert (seen[-1].objects, seen[-1].objects_done) == (8, 8)
    assert names(storage) == COALESCED
    assert ingested(storage) == small_day_records()
    ended = marker(storage)
    assert ended is not None
    assert (ended.state, ended.count) == (MarkerState.COMPLETE, 2)


def test_a_shard_that_fails_is_named_and_the_others_are_merged(file_storage: Storage) -> None:
    put_small_day(file_storage)
    bad = put_raw(file_storage, 105, 109, kafka_partition=1, data=b"not gzip")
    result = CliRunner().invoke(coalesce_command, [*arguments(file_storage), "--processes", "2", "--json"])
    assert result.exit_code == 1
    assert f"COALESCER_FAILED: shard 1/2: {bad} cannot be merged" in result.stderr
    assert json.loads(result.stdout)["after"]["objects"] == 5
    assert COALESCED[:2] == names(file_storage)[:2]
    failed = marker(file_storage)
    assert failed is not None
    assert failed.state is MarkerState.FAILED
    assert str(failed.reason).startswith(f"shard 1/2: {bad}")


def test_beside_another_coalescer_no_process_works(file_storage: Storage) -> None:
    put_small_day(file_storage)
    with Claim(file_storage, AUDIT.on(DAY)), pytest.raises(CdiError, match="Another coalescer") as caught:
        coalesce_by_processes(file_storage, AUDIT.on(DAY), processes=2)
    assert caught.value.failure_class is FailureClass.COALESCER_RUNNING
    assert len(names(file_storage)) == 8


def test_a_job_of_an_array_takes_its_index_from_batch(file_storage: Storage) -> None:
    put_small_day(file_storage)
    for index in ("1", "0"):
        environment = {"AWS_BATCH_JOB_ARRAY_INDEX": index}
        result = CliRunner(env=environment).invoke(coalesce_command, [*arguments(file_storage), "--shard", "/2"])
        assert result.exit_code == 0
    assert names(file_storage) == COALESCED
    ended = marker(file_storage)
    assert ended is not None
    assert ended.state is MarkerState.COMPLETE


def test_more_shards_than_a_marker_takes_are_refused(file_storage: Storage) -> None:
    result = CliRunner().invoke(coalesce_command, [*arguments(file_storage), "--shard", "0/16", "--processes", "9"])
    assert result.exit_code == 2
    assert "are more than 128 in all" in result.stderr


# The program, whose second shard pauses after each batch: it would be at work for a minute.
_UNHURRIED = """
import sys, time
from cdi_dagster.coalescer import command, processes
coalesce = processes.coalesce

def slow(storage, day, *, shard, progress, **options):
    def pause(state):
        progress(state)
        time.sleep(0.3 if shard.index else 0)
    return coalesce(storage, day, shard=shard, progress=pause, **options)

processes.coalesce = slow
if __name__ == "__main__":
    command.coalesce_command()
"""


def started(storage: Storage, tmp_path: Path) -> subprocess.Popen[str]:
    program = tmp_path / "unhurried.py"
    program.write_text(_UNHURRIED)
    command = [sys.executable, str(program), *arguments(storage), "--processes", "2", "--max-objects", "2"]
    paths = filter(None, [os.environ.get("PYTHONPATH"), str(Path(__file__).parents[2])])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def put_larger_day(storage: Storage) -> list[bytes]:
    for partition in range(2):
        for first in range(0, 500, 5):
            put_raw(storage, first, first + 4, kafka_partition=partition)
    return ingested(storage)


def process_of(storage: Storage, shard: Shard) -> int | None:
    """Return the process of a shard that is at work, once the other is done."""
    found = marker(storage)
    other = found and found.of(Shard(index=1 - shard.index, count=2))
    ours = found and found.of(shard)
    if not (ours and other and other.state is MarkerState.COMPLETE and ours.state is MarkerState.RUNNING):
        return None
    return int(ours.writer.rpartition(":")[2].partition("#")[0])


def test_kill_9_of_one_shards_process_loses_and_doubles_nothing_and_the_next_run_finishes(tmp_path: Path) -> None:
    storage = open_storage((tmp_path / "corporate").as_uri())
    before = put_larger_day(storage)
    program = started(storage, tmp_path)
    pid = wait_until(lambda: process_of(storage, Shard(index=1, count=2)), "shard 1 works", seen=program.poll)
    os.kill(pid, signal.SIGKILL)
    _, stderr = program.communicate(timeout=PATIENCE_SECONDS)
    assert program.returncode == 1
    assert "COALESCER_FAILED: The process of shard 1/2 was killed by signal 9" in stderr
    assert ingested(storage) == before

    summary = coalesce_by_processes(storage, AUDIT.on(DAY), processes=2, clock=an_hour_later)
    assert summary.succeeded
    assert str(summary.took_over).startswith(f"{socket.gethostname()}:{pid}#")
    assert ingested(storage) == before
    assert all("-" not in name for name in names(storage))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL])
def test_when_who_started_them_is_stopped_each_stops_and_writes_failed(tmp_path: Path, kind: signal.Signals) -> None:
    storage = open_storage((tmp_path / "corporate").as_uri())
    before = put_larger_day(storage)
    program = started(storage, tmp_path)
    wait_until(lambda: process_of(storage, Shard(index=1, count=2)), "shard 1 works", seen=program.poll)
    program.send_signal(kind)
    program.communicate(timeout=PATIENCE_SECONDS)
    assert program.returncode == (1 if kind is signal.SIGTERM else -signal.SIGKILL)

    def has_failed() -> bool:
        found = marker(storage)
        return found is not None and found.state is MarkerState.FAILED

    wait_until(has_failed, "shard 1 has written FAILED")
    assert ingested(storage) == before
    assert any("-" in name for name in names(storage))
