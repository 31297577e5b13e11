import json
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cdi_dagster.coalescer import coalesce
from cdi_dagster.coalescer.claim import Claim
from cdi_dagster.coalescer.marker import Marker, MarkerState, of_shards
from cdi_dagster.coalescer.shard import Shard
from cdi_dagster.coalescer_status.marker_status import MarkerCoalescerStatus
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.listing import listing_fingerprint
from cdi_dagster.core.storage_keys import coalescer_marker_key
from cdi_dagster.storage import Storage, StorageUnavailableError, open_storage
from cdi_dagster_tests.collections import AUDIT

DAY = date(2023, 3, 26)
PREFIX = AUDIT.on(DAY).corporate_prefix
KEY = coalescer_marker_key(AUDIT.on(DAY))
STARTED = datetime(2023, 3, 27, 1, tzinfo=UTC)


@pytest.fixture
def corporate(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "corporate").as_uri())


def status(corporate: Any, now: datetime = STARTED) -> CoalescerStatus:
    return MarkerCoalescerStatus(corporate, lease_seconds=300, clock=lambda: now).status(AUDIT.on(DAY))


def put_raw(corporate: Storage, offsets: str = "0-4") -> None:
    corporate.write(f"{PREFIX}data.businessAudit_0_{offsets}.jsonl.gz", offsets.encode())


def mark(corporate: Storage, **fields: Any) -> None:
    values: dict[str, Any] = {"started_at": STARTED, "heartbeat_at": STARTED, "writer": "host:12#ab", **fields}
    corporate.write(KEY, json.dumps(Marker(**values).to_json()).encode())


def mark_complete(corporate: Storage, completed_at: datetime) -> str:
    fingerprint = listing_fingerprint(corporate.list(PREFIX))
    mark(corporate, state=MarkerState.COMPLETE, completed_at=completed_at, fingerprint=fingerprint, objects=1, bytes=3)
    return fingerprint


def test_a_root_without_corporate_storage_is_named_and_is_no_day_without_objects(corporate: Storage) -> None:
    result = status(corporate)
    assert result.state is CoalescerState.UNKNOWN
    assert (
        result.reason == f"There is nothing under {corporate.root}/corporate_storage/: that is not where K2HB writes."
    )
    assert "CDI_CORPORATE_ROOT" in str(result.next_step)


def test_without_a_marker_it_has_not_started_and_counts_the_objects(corporate: Storage) -> None:
    corporate.write(f"{AUDIT.on(DAY - timedelta(days=1)).corporate_prefix}data.businessAudit_0_0_9.jsonl.gz", b"x")
    assert status(corporate).state is CoalescerState.NOT_STARTED
    assert status(corporate).reason == "coalescer for 2023-03-26 has not started; there are no objects for it either"
    put_raw(corporate)
    assert status(corporate).state is CoalescerState.NOT_STARTED
    assert status(corporate).reason == "coalescer for 2023-03-26 has not started; 1 objects wait for it"


def test_a_running_one_is_named_with_its_time_so_far(corporate: Storage) -> None:
    mark(corporate, state=MarkerState.RUNNING, heartbeat_at=STARTED + timedelta(minutes=41, seconds=50))
    result = status(corporate, STARTED + timedelta(minutes=42))
    assert result.state is CoalescerState.RUNNING
    assert result.reason == "coalescer for 2023-03-26 still running (host:12#ab, 42 min so far)"


def test_a_running_one_shows_how_much_is_done_and_how_long_the_rest_takes(corporate: Storage) -> None:
    at = STARTED + timedelta(minutes=31)
    mark(corporate, state=MarkerState.RUNNING, heartbeat_at=at, share_done=0.62)
    result = status(corporate, at + timedelta(minutes=1))
    assert result.reason == (
        "coalescer for 2023-03-26 still running (host:12#ab, 32 min so far, 62%, about 18 min left)"
    )


@pytest.mark.parametrize(("silent_seconds", "state"), [(300, CoalescerState.RUNNING), (301, CoalescerState.FAILED)])
def test_a_running_marker_counts_for_its_lease_and_no_longer(
    corporate: Storage, silent_seconds: int, state: CoalescerState
) -> None:
    mark(corporate, state=MarkerState.RUNNING)
    assert status(corporate, STARTED + timedelta(seconds=silent_seconds)).state is state


def test_a_killed_coalescer_is_failed_with_the_time_of_its_last_heartbeat(corporate: Storage) -> None:
    mark(corporate, state=MarkerState.RUNNING)
    result = status(corporate, STARTED + timedelta(minutes=10))
    assert "written no heartbeat for 10 min, since 2023-03-27 01:00:00 UTC (host:12#ab)" in result.reason
    assert "Run it again" in result.reason


def test_a_clock_that_is_behind_does_not_make_a_live_one_dead(corporate: Storage) -> None:
    mark(corporate, state=MarkerState.RUNNING)
    result = status(corporate, STARTED - timedelta(hours=2))
    assert (result.state, "0 s so far" in result.reason) == (CoalescerState.RUNNING, True)


def test_a_failed_one_is_failed_with_its_own_reason(corporate: Storage) -> None:
    mark(corporate, state=MarkerState.FAILED, completed_at=STARTED, reason="x cannot be merged: it is empty")
    result = status(corporate)
    assert result.state is CoalescerState.FAILED
    assert result.reason == (
        "coalescer for 2023-03-26 failed at 2023-03-27 01:00 UTC (host:12#ab): x cannot be merged: it is empty"
    )


def test_a_complete_one_opens_the_gate_with_its_fingerprint(corporate: Storage) -> None:
    put_raw(corporate)
    fingerprint = mark_complete(corporate, STARTED)
    result = status(corporate)
    assert result.is_open
    assert (result.fingerprint, result.completed_at) == (fingerprint, STARTED)


def just_now() -> datetime:
    """A moment that what is written next is younger than: some file systems keep the time in whole seconds."""
    moment = datetime.now(UTC)
    time.sleep(1.05 - moment.microsecond / 1_000_000)  # and the kernel's clock for files goes by steps of some ms
    return moment


def test_objects_that_arrived_after_completion_close_the_gate_and_are_counted(corporate: Storage) -> None:
    put_raw(corporate)
    mark_complete(corporate, just_now())
    put_raw(corporate, "5-9")
    put_raw(corporate, "10-14")
    result = status(corporate)
    assert result.state is CoalescerState.NOT_STARTED
    assert "but 2 objects have arrived since (data.businessAudit_0_5-9.jsonl.gz first): run it again" in result.reason


def test_objects_that_vanished_after_completion_close_the_gate(corporate: Storage) -> None:
    put_raw(corporate)
    put_raw(corporate, "5-9")
    mark_complete(corporate, just_now())
    corporate.delete([f"{PREFIX}data.businessAudit_0_5-9.jsonl.gz"])
    result = status(corporate)
    assert result.state is CoalescerState.UNKNOWN
    assert "have gone or changed since: 1 objects then, 1 objects with 5 offsets now" in result.reason
    assert "would lose records" in result.reason
    assert "Restore the objects" in str(result.next_step)
    assert "override" not in str(result.next_step)


def test_a_coalesced_object_that_was_written_again_after_completion_has_not_arrived(corporate: Storage) -> None:
    key = f"{PREFIX}data.businessAudit_0_0_4.jsonl.gz"
    corporate.write(key, b"whole")
    mark_complete(corporate, just_now())
    corporate.write(key, b"cut")
    put_raw(corporate, "5-9")
    result = status(corporate)
    assert result.state is CoalescerState.UNKNOWN
    assert "changed since (data.businessAudit_0_0_4.jsonl.gz was written after that)" in result.reason
    assert "Restore the objects" in str(result.next_step)


def test_a_coalescer_whose_clock_is_behind_that_of_storage_still_matches_its_listing(corporate: Storage) -> None:
    corporate.write(f"{PREFIX}data.businessAudit_0_0_4.jsonl.gz", b"whole")
    mark_complete(corporate, datetime.now(UTC) - timedelta(minutes=1))
    put_raw(corporate, "5-9")
    result = status(corporate)
    assert result.state is CoalescerState.NOT_STARTED
    assert "1 object has arrived since (data.businessAudit_0_5-9.jsonl.gz first)" in result.reason


@pytest.mark.parametrize("content", [b"", b"{half", b"[]", b'{"state": "COMPLETE"}'])
def test_a_marker_that_cannot_be_read_is_unknown(corporate: Storage, content: bytes) -> None:
    corporate.write(KEY, content)
    result = status(corporate)
    assert result.state is CoalescerState.UNKNOWN
    assert KEY in result.reason


@pytest.mark.parametrize("method", ["head", "open", "list"])
def test_storage_that_does_not_answer_is_unknown(corporate: Storage, method: str) -> None:
    put_raw(corporate)
    mark_complete(corporate, STARTED)

    class Down:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            def fail(*arguments: Any, **options: Any) -> Any:
                raise StorageUnavailableError("Could not read it: 503")

            return fail if name == method else getattr(corporate, name)

    result = status(Down())
    assert result.state is CoalescerState.UNKNOWN
    assert "503" in result.reason


def test_the_coalescer_itself_is_seen_running_then_complete(corporate: Storage) -> None:
    def current() -> CoalescerStatus:
        return MarkerCoalescerStatus(corporate, lease_seconds=300).status(AUDIT.on(DAY))

    with Claim(corporate, AUDIT.on(DAY)) as claim:
        assert current().state is CoalescerState.RUNNING
        claim.fail("stopped by the test")
    assert current().state is CoalescerState.FAILED
    summary = coalesce(corporate, AUDIT.on(DAY))
    assert current().is_open
    assert current().fingerprint == summary.after.fingerprint


def shard(index: int, count: int = 2) -> Shard:
    return Shard(index=index, count=count)


def mark_shards(corporate: Storage, *shards: Marker | None) -> None:
    corporate.write(KEY, json.dumps(of_shards(shards).to_json()).encode())


def running(**fields: Any) -> Marker:
    values: dict[str, Any] = {"state": MarkerState.RUNNING, "started_at": STARTED, "heartbeat_at": STARTED, **fields}
    return Marker(writer="host:12#ab", **values)


def complete(corporate: Storage, index: int, at: datetime = STARTED) -> Marker:
    left = [stored for stored in corporate.list(PREFIX) if shard(index).holds(stored.key)]
    figures = {"objects": len(left), "bytes": 3, "offsets": 5, "fingerprint": listing_fingerprint(left)}
    return running(state=MarkerState.COMPLETE, completed_at=at, **figures)


def put_partitions(corporate: Storage, offsets: str) -> None:
    for partition in range(2):
        corporate.write(f"{PREFIX}data.businessAudit_{partition}_{offsets}.jsonl.gz", offsets.encode())


def test_a_sharded_day_runs_while_a_shard_does_and_shows_shards_share_and_time_left(corporate: Storage) -> None:
    at = STARTED + timedelta(minutes=30)
    done = running(state=MarkerState.COMPLETE, completed_at=STARTED)
    failed = running(state=MarkerState.FAILED, completed_at=STARTED, reason="x")
    mark_shards(corporate, done, running(heartbeat_at=at, share_done=0.5), failed, None)
    result = status(corporate, at)
    assert result.state is CoalescerState.RUNNING
    assert result.reason == (
        "coalescer for 2023-03-26 still running (shard 1/4, host:12#ab, 30 min so far, 1 of 4 shards done, 38%, "
        "about 30 min left); shard 2/4 has failed"
    )


@pytest.mark.parametrize(
    ("other", "state", "reason"),
    [
        (
            running(state=MarkerState.FAILED, completed_at=STARTED, reason="x cannot be merged"),
            CoalescerState.FAILED,
            "failed at 2023-03-27 01:00 UTC (shard 1/2, host:12#ab): x cannot be merged",
        ),
        (running(heartbeat_at=STARTED - timedelta(minutes=9)), CoalescerState.FAILED, "heartbeat for 9 min, since"),
        (None, CoalescerState.NOT_STARTED, "is not complete: 1 of 2 shards are; shard 1/2 has not started"),
    ],
)
def test_a_sharded_day_is_no_better_than_its_worst_shard(
    corporate: Storage, other: Marker | None, state: CoalescerState, reason: str
) -> None:
    put_partitions(corporate, "0_4")
    mark_shards(corporate, complete(corporate, 0), other)
    result = status(corporate)
    assert result.state is state
    assert reason in result.reason


def test_a_sharded_day_is_complete_when_each_shard_is_as_it_was_left(corporate: Storage) -> None:
    put_partitions(corporate, "0_4")
    mark_shards(corporate, complete(corporate, 0), complete(corporate, 1))
    result = status(corporate)
    assert result.is_open
    assert result.fingerprint == listing_fingerprint(corporate.list(PREFIX))
    assert "2 objects, 6 bytes" in result.reason


def test_what_arrived_in_a_shard_that_was_done_before_the_last_one_closes_the_gate(corporate: Storage) -> None:
    put_partitions(corporate, "0_4")
    first = complete(corporate, 0, at=just_now())
    put_raw(corporate, "5-9")
    later = datetime.now(UTC) + timedelta(minutes=1)
    mark_shards(corporate, first, complete(corporate, 1, at=later))
    result = status(corporate, later)
    assert result.state is CoalescerState.NOT_STARTED
    assert "but 1 object has arrived since (data.businessAudit_0_5-9.jsonl.gz first): run it again" in result.reason


def test_what_vanished_from_a_shard_closes_the_gate(corporate: Storage) -> None:
    put_partitions(corporate, "0_4")
    mark_shards(corporate, complete(corporate, 0), complete(corporate, 1))
    corporate.delete([f"{PREFIX}data.businessAudit_1_0_4.jsonl.gz"])
    result = status(corporate)
    assert result.state is CoalescerState.UNKNOWN
    assert "have gone or changed since: 2 objects with 10 offsets then, 1 objects" in result.reason


def test_shards_of_the_coalescer_itself_are_seen_one_after_the_other(corporate: Storage) -> None:
    put_partitions(corporate, "0_4")
    seen = []
    for index in range(2):
        coalesce(corporate, AUDIT.on(DAY), shard=shard(index))
        seen.append(MarkerCoalescerStatus(corporate, lease_seconds=300).status(AUDIT.on(DAY)).state)
    assert seen == [CoalescerState.NOT_STARTED, CoalescerState.COMPLETE]
