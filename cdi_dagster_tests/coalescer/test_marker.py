"""One coalescer a day: the claim, its heartbeat, its loss."""

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cdi_dagster.coalescer.claim import Claim
from cdi_dagster.coalescer.marker import InvalidMarkerError, Marker, MarkerState, read_marker
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import coalescer_marker_key
from cdi_dagster.storage.interface import ObjectMissingError, Storage, StorageUnavailableError
from cdi_dagster_tests.coalescer.days import DAY, Meddled
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, wait_until

KEY = coalescer_marker_key(AUDIT.on(DAY))


def claim(storage: Any, **options: Any) -> Claim:
    return Claim(storage, AUDIT.on(DAY), **options)


def marker(storage: Storage) -> Marker:
    found = read_marker(storage, KEY)
    assert found is not None
    return found[0]


def test_of_two_coalescers_of_a_day_one_fails_and_names_the_other(storage: Storage) -> None:
    with claim(storage) as first:
        with pytest.raises(
            CdiError, match=r"Another coalescer \(.*:\d+#.*\) has been working on data:businessAudit"
        ) as caught:
            claim(storage).__enter__()
        assert caught.value.failure_class is FailureClass.COALESCER_RUNNING
        assert marker(storage).state is MarkerState.RUNNING
        first.complete(objects=1, bytes=2, offsets=3, fingerprint="f")
    assert marker(storage).state is MarkerState.COMPLETE


def test_of_many_that_start_at_once_exactly_one_works(storage: Storage) -> None:
    results: list[str] = []
    at_once, all_tried = threading.Barrier(6), threading.Barrier(6)

    def start() -> None:
        at_once.wait()
        try:
            with claim(storage):
                results.append("works")
                all_tried.wait(PATIENCE_SECONDS)
        except CdiError as error:
            results.append(str(error.failure_class))
            all_tried.wait(PATIENCE_SECONDS)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["COALESCER_RUNNING"] * 5 + ["works"]


def test_other_days_and_collections_are_free(file_storage: Storage) -> None:
    with claim(file_storage), Claim(file_storage, AUDIT.on(DAY + timedelta(days=1))):
        pass


def test_a_killed_coalescer_is_taken_over_after_its_lease_and_not_before(storage: Storage) -> None:
    now = datetime(2023, 3, 27, 1, tzinfo=UTC)
    dead = Marker(state=MarkerState.RUNNING, started_at=now, heartbeat_at=now, writer="host:1#abc")
    storage.write(KEY, json.dumps(dead.to_json()).encode())
    with pytest.raises(CdiError, match="120 s old"):
        claim(storage, clock=lambda: now + timedelta(seconds=120)).__enter__()
    with claim(storage, clock=lambda: now + timedelta(seconds=121)) as taken:
        assert taken.took_over == "host:1#abc (silent for 121 s)"
        assert marker(storage).writer != "host:1#abc"


def test_the_heartbeat_is_written_while_it_works(file_storage: Storage) -> None:
    with claim(file_storage, lease_seconds=0.6):
        begun = marker(file_storage)
        wait_until(lambda: marker(file_storage).heartbeat_at > begun.heartbeat_at, "there is another heartbeat")
        assert marker(file_storage).started_at == begun.started_at


def test_a_heartbeat_has_how_much_is_done_and_the_end_has_not(file_storage: Storage) -> None:
    with claim(file_storage, lease_seconds=12) as held:
        held.share_done = 0.62
        wait_until(lambda: marker(file_storage).share_done == 0.62, "a heartbeat has it")
        held.complete()
    assert marker(file_storage).share_done is None


def test_who_was_taken_over_notices_before_it_deletes(file_storage: Storage) -> None:
    now = datetime.now(UTC)
    with claim(file_storage, lease_seconds=3) as first:
        with claim(file_storage, clock=lambda: now + timedelta(hours=1)) as second:
            wait_until(lambda: first._lost, "the first knows that it was taken over")
            second.complete(objects=0, bytes=0, offsets=0, fingerprint="second")
        with pytest.raises(CdiError, match="lost its claim on data:businessAudit of 2023-03-26: another") as caught:
            first.require_held()
        assert caught.value.failure_class is FailureClass.COALESCER_FAILED
    assert marker(file_storage).fingerprint == "second"


@pytest.mark.parametrize("end", ["complete", "fail", "raises"])
def test_who_was_taken_over_ends_in_that_sentence_however_it_ends(file_storage: Storage, end: str) -> None:
    now = datetime.now(UTC)

    def coalesce_and_be_taken_over() -> None:
        with claim(file_storage, lease_seconds=600) as first:  # no heartbeat notices it before
            with claim(file_storage, clock=lambda: now + timedelta(hours=1)) as second:
                second.complete(objects=0, bytes=0, offsets=0, fingerprint="second")
            if end == "raises":
                raise ObjectMissingError("Could not read a raw object: it is not there.")
            first.complete(objects=1) if end == "complete" else first.fail("a batch failed")

    with pytest.raises(CdiError, match="This coalescer lost its claim on data:businessAudit of 2023-03-26") as caught:
        coalesce_and_be_taken_over()
    assert caught.value.failure_class is FailureClass.COALESCER_FAILED
    assert marker(file_storage).fingerprint == "second"


def test_a_heartbeat_that_cannot_be_written_for_half_a_lease_stops_it(file_storage: Storage) -> None:
    down = threading.Event()

    def write(real: Any, *arguments: Any, **options: Any) -> Any:
        if down.is_set():
            raise StorageUnavailableError("Could not write it: 503")
        return real(*arguments, **options)

    with claim(Meddled(file_storage, write=write), lease_seconds=4) as held:
        held.require_held()
        down.set()

        def stopped() -> CdiError | None:
            try:
                held.require_held()
            except CdiError as error:
                return error
            return None

        assert "its last heartbeat is" in str(wait_until(stopped, "half a lease is over"))
    assert marker(file_storage).state is MarkerState.RUNNING  # it ends with its lease


def test_a_heartbeat_that_fails_once_is_made_up_for(file_storage: Storage) -> None:
    failures = iter([False, True])

    def write(real: Any, *arguments: Any, **options: Any) -> Any:
        if next(failures, False):
            raise StorageUnavailableError("Could not write it: 503")
        return real(*arguments, **options)

    with claim(Meddled(file_storage, write=write), lease_seconds=12) as held:
        begun = marker(file_storage)
        wait_until(lambda: marker(file_storage).heartbeat_at > begun.heartbeat_at, "there is another heartbeat")
        held.require_held()


def test_a_heartbeat_whose_response_was_lost_is_still_its_own(file_storage: Storage) -> None:
    replies = iter([True, False])

    def write(real: Any, *arguments: Any, **options: Any) -> Any:
        written = real(*arguments, **options)
        if not next(replies, True):
            raise StorageUnavailableError("The reply was lost")
        return written

    with claim(Meddled(file_storage, write=write), lease_seconds=12) as held:
        begun = marker(file_storage)
        wait_until(lambda: marker(file_storage).heartbeat_at > begun.heartbeat_at, "there is another heartbeat")
        first = marker(file_storage)
        wait_until(lambda: marker(file_storage).heartbeat_at > first.heartbeat_at, "there is a third heartbeat")
        held.complete(objects=0, bytes=0, offsets=0, fingerprint="f")
    assert marker(file_storage).state is MarkerState.COMPLETE


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a defect")])
def test_leaving_by_an_error_writes_failed(file_storage: Storage, error: BaseException) -> None:
    with pytest.raises(type(error)), claim(file_storage):
        raise error
    ended = marker(file_storage)
    assert ended.state is MarkerState.FAILED
    assert type(error).__name__ in (ended.reason or "")
    with claim(file_storage):
        pass


def test_a_marker_is_read_back_as_it_was_written(file_storage: Storage) -> None:
    now = datetime.now(UTC)
    whole = Marker(
        state=MarkerState.COMPLETE,
        started_at=now,
        heartbeat_at=now,
        completed_at=now,
        writer="host:1#abc",
        objects=1,
        bytes=2,
        offsets=3,
        fingerprint="f",
    )
    file_storage.write(KEY, json.dumps({**whole.to_json(), "of_a_later_version": 1}).encode())
    assert marker(file_storage) == whole


@pytest.mark.parametrize("content", [b"", b"{half", b"[]", b"null", b"{}", b'{"state": "DANCING"}'])
def test_what_is_no_marker_is_not_read_as_one_nor_replaced(file_storage: Storage, content: bytes) -> None:
    file_storage.write(KEY, content)
    with pytest.raises(InvalidMarkerError, match="is not a coalescer marker"):
        read_marker(file_storage, KEY)
    with pytest.raises(CdiError, match="is not a coalescer marker") as caught:
        claim(file_storage).__enter__()
    assert "Delete it" in caught.value.next_step
    assert file_storage.read(KEY) == content
