"""Shards of one count work side by side; with the whole day, or another count, never."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cdi_dagster.coalescer.claim import Claim
from cdi_dagster.coalescer.marker import Marker, MarkerState, read_marker
from cdi_dagster.coalescer.shard import WHOLE_DAY, Shard
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import coalescer_marker_key
from cdi_dagster.storage.interface import Storage
from cdi_dagster_tests.coalescer.days import DAY
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, wait_until

KEY = coalescer_marker_key(AUDIT.on(DAY))
FIGURES = {"objects": 1, "bytes": 2, "offsets": 3, "fingerprint": "f"}


def claim(storage: Any, shard: Shard, **options: Any) -> Claim:
    return Claim(storage, AUDIT.on(DAY), shard=shard, **options)


def marker(storage: Storage) -> Marker:
    found = read_marker(storage, KEY)
    assert found is not None
    return found[0]


def an_hour_later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def test_many_shards_that_start_at_once_all_work_and_end_complete(storage: Storage) -> None:
    count = 8
    all_work = threading.Barrier(count)
    states: list[MarkerState] = []

    def work(index: int) -> None:
        with claim(storage, Shard(index=index, count=count), lease_seconds=30) as held:
            all_work.wait(PATIENCE_SECONDS)
            states.append(marker(storage).state)
            held.complete(**FIGURES)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == [MarkerState.RUNNING] * count
    ended = marker(storage)
    assert (ended.state, ended.count, ended.objects) == (MarkerState.COMPLETE, count, count)


def test_heartbeats_of_shards_keep_each_others_claims(file_storage: Storage) -> None:
    shards = [Shard(index=index, count=3) for index in range(3)]
    claims = [claim(file_storage, shard, lease_seconds=12) for shard in shards]
    for each in claims:
        each.__enter__()
    begun = marker(file_storage)

    def all_have_beaten() -> bool:
        return all(
            now.heartbeat_at > before.heartbeat_at
            for (_, now), (_, before) in zip(marker(file_storage).claims(), begun.claims(), strict=True)
        )

    wait_until(all_have_beaten, "each has written a heartbeat")
    for each in claims:
        each.require_held()
        each.complete(**FIGURES)
        each.__exit__(None, None, None)
    assert marker(file_storage).state is MarkerState.COMPLETE


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Shard(index=1, count=3), Shard(index=1, count=3)),
        (Shard(index=1, count=3), WHOLE_DAY),
        (WHOLE_DAY, Shard(index=1, count=3)),
        (Shard(index=1, count=3), Shard(index=0, count=4)),
    ],
)
def test_beside_another_claim_on_its_objects_none_is_given(storage: Storage, first: Shard, second: Shard) -> None:
    with claim(storage, first):
        with pytest.raises(CdiError, match="Another coalescer") as caught:
            claim(storage, second).__enter__()
        assert caught.value.failure_class is FailureClass.COALESCER_RUNNING
        assert marker(storage).of(first) is not None


@pytest.mark.parametrize(
    ("stalled", "other"),
    [
        (Shard(index=1, count=3), Shard(index=1, count=3)),
        (Shard(index=1, count=3), WHOLE_DAY),
        (WHOLE_DAY, Shard(index=2, count=3)),
        (Shard(index=1, count=3), Shard(index=0, count=4)),
    ],
)
def test_who_was_taken_over_by_whatever_shard_stops_and_changes_no_marker(
    file_storage: Storage, stalled: Shard, other: Shard
) -> None:
    def be_taken_over() -> None:
        with claim(file_storage, stalled, lease_seconds=600) as first:  # no heartbeat notices it before
            with claim(file_storage, other, clock=an_hour_later) as second:
                assert "silent for" in str(second.took_over)
                second.complete(**FIGURES)
            first.complete(**FIGURES)

    with pytest.raises(CdiError, match="This coalescer lost its claim on data:businessAudit of 2023-03-26"):
        be_taken_over()
    assert [shard for shard, _ in marker(file_storage).claims()] == [other]


def test_a_shard_that_runs_again_leaves_the_others_as_they_were(file_storage: Storage) -> None:
    shards = [Shard(index=index, count=2) for index in range(2)]
    with claim(file_storage, shards[0]) as held:
        held.fail("a batch failed", **FIGURES)
    with claim(file_storage, shards[1]) as held:
        held.complete(**FIGURES)
    failed = marker(file_storage)
    assert (failed.state, failed.reason) == (MarkerState.FAILED, "shard 0/2: a batch failed")
    with claim(file_storage, shards[0]) as held:
        assert marker(file_storage).state is MarkerState.RUNNING
        held.complete(**FIGURES)
    assert marker(file_storage).state is MarkerState.COMPLETE


def test_of_another_count_it_has_the_shards_whose_uploads_nobody_finishes(file_storage: Storage) -> None:
    with claim(file_storage, Shard(index=1, count=3)) as held:
        held.fail("killed")
    with claim(file_storage, WHOLE_DAY) as whole:
        assert whole.replaced == (Shard(index=1, count=3),)
