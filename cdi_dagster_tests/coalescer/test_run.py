"""A day is coalesced, and no fault of storage or of its objects loses or doubles a record."""

import gzip
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from cdi_dagster.coalescer import CoalesceProgress, CoalesceSummary, coalesce
from cdi_dagster.coalescer import run as coalescer_run
from cdi_dagster.coalescer.marker import MarkerState, read_marker
from cdi_dagster.coalescer.shard import Shard
from cdi_dagster.core import member_index
from cdi_dagster.core.listing import listing_fingerprint
from cdi_dagster.core.storage_keys import coalescer_marker_key, member_indexes_prefix
from cdi_dagster.storage.interface import Storage, StorageError, StorageUnavailableError
from cdi_dagster_tests.coalescer.days import (
    DAY,
    PREFIX,
    Meddled,
    content,
    in_prefix,
    indexed,
    ingested,
    key,
    names,
    put_raw,
    put_small_day,
    record,
    small_day_records,
)
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

MARKER = coalescer_marker_key(AUDIT.on(DAY))
INDEXES = member_indexes_prefix(AUDIT.on(DAY))
COALESCED = ["0_0_14.jsonl.gz", "0_20_29.jsonl.gz", "1_100_114.jsonl.gz"]


def run(storage: Any, **options: Any) -> CoalesceSummary:
    return coalesce(storage, AUDIT.on(DAY), **options)


def marker_state(storage: Storage) -> tuple[MarkerState, str | None]:
    found = read_marker(storage, MARKER)
    assert found is not None
    return found[0].state, found[0].reason


def fails_once(when: Callable[..., bool], error: Exception) -> Callable[..., Any]:
    """Return a replacement of a storage method that fails the first time `when` is true of its arguments."""
    failed = []

    def method(real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if not failed and when(*arguments):
            failed.append(True)
            raise error
        return real(*arguments, **options)

    return method


def test_a_day_is_merged_by_partition_up_to_the_gaps(storage: Storage) -> None:
    put_small_day(storage)
    bytes_before = sum(stored.size_bytes for stored in storage.list(PREFIX))
    summary = run(storage)
    assert names(storage) == COALESCED
    assert ingested(storage) == small_day_records()
    assert summary.succeeded
    assert (summary.before.objects, summary.after.objects, summary.after.offsets) == (8, 3, 40)
    assert summary.before.bytes == summary.after.bytes == bytes_before
    assert [merged.removeprefix(PREFIX) for merged in summary.merged] == [f"data.businessAudit_{n}" for n in COALESCED]
    assert (summary.warnings, summary.finished) == ((), ())


def test_the_complete_marker_holds_the_figures_of_what_is_there(storage: Storage) -> None:
    put_small_day(storage)
    summary = run(storage)
    found = read_marker(storage, MARKER)
    assert found is not None
    marker, _ = found
    listing = list(storage.list(PREFIX))
    assert marker.state is MarkerState.COMPLETE
    assert (marker.objects, marker.offsets) == (3, 40)
    assert marker.bytes == sum(stored.size_bytes for stored in listing)
    assert marker.fingerprint == summary.after.fingerprint == listing_fingerprint(listing)
    assert marker.completed_at is not None


def test_a_second_run_finds_nothing_to_do_and_leaves_the_fingerprint(storage: Storage) -> None:
    put_small_day(storage)
    first = run(storage)
    second = run(storage)
    assert second.succeeded
    assert (second.merged, second.finished) == ((), ())
    assert second.after == first.after


def test_late_objects_are_merged_among_themselves(file_storage: Storage) -> None:
    put_small_day(file_storage)
    run(file_storage)
    for first in (30, 35):
        put_raw(file_storage, first, first + 4)
    assert [merged.removeprefix(PREFIX) for merged in run(file_storage).merged] == [
        "data.businessAudit_0_30_39.jsonl.gz"
    ]
    assert len(ingested(file_storage)) == 50


def test_a_day_without_objects_is_complete_with_zero_objects(file_storage: Storage) -> None:
    summary = run(file_storage)
    assert summary.succeeded
    assert summary.after.objects == 0
    assert marker_state(file_storage)[0] is MarkerState.COMPLETE


def test_a_read_that_fails_leaves_its_batch_as_it_was_and_the_next_run_merges_it(storage: Storage) -> None:
    put_small_day(storage)
    error = StorageUnavailableError("Could not read it: the connection was reset")
    summary = run(Meddled(storage, read_small=fails_once(lambda name: name == key("5-9"), error)))
    assert summary.failures == (str(error),)
    assert names(storage) == ["0_0-4.jsonl.gz", "0_10-14.jsonl.gz", *COALESCED[1:2], "0_5-9.jsonl.gz", COALESCED[2]]
    assert marker_state(storage) == (MarkerState.FAILED, str(error))
    assert ingested(storage) == small_day_records()
    assert run(storage).succeeded
    assert names(storage) == COALESCED


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (content(5, 9)[:-5], "cut short"),
        (content(5, 9)[:-8] + b"\0" * 8, "damaged"),
        (b"this is not gzip", "not gzip"),
        (b"", "empty"),
    ],
)
def test_a_part_that_is_not_whole_gzip_leaves_its_batch_as_it_was_and_the_others_go_on(
    storage: Storage, data: bytes, message: str
) -> None:
    put_small_day(storage)
    put_raw(storage, 5, 9, data=data)
    summary = run(storage)
    assert len(summary.failures) == 1
    assert key("5-9") in summary.failures[0]
    assert message in summary.failures[0]
    assert names(storage) == ["0_0-4.jsonl.gz", "0_10-14.jsonl.gz", *COALESCED[1:2], "0_5-9.jsonl.gz", COALESCED[2]]
    assert storage.read(key("5-9")) == data
    assert marker_state(storage)[0] is MarkerState.FAILED

    put_raw(storage, 5, 9)
    assert run(storage).succeeded
    assert ingested(storage) == small_day_records()


def test_a_part_without_a_final_newline_is_not_joined_to_the_next(storage: Storage) -> None:
    put_raw(storage, 0, 4, data=content(0, 4, final_newline=False))
    put_raw(storage, 5, 9, data=content(5, 9, final_newline=False))
    summary = run(storage)
    assert summary.succeeded
    assert [warning.split(" ", 1)[1] for warning in summary.warnings] == [
        "does not end with a newline; one was put after it"
    ] * 2
    assert gzip.decompress(storage.read(key("0_9"))) == b"".join(record(0, n) + b"\n" for n in range(10))


def test_padding_and_unended_members_of_a_part_are_merged_such_that_every_reader_reads_each_record(
    storage: Storage,
) -> None:
    lines = [record(0, n) for n in range(5)]
    members = [gzip.compress(line, mtime=0) for line in lines]
    put_raw(storage, 0, 4, data=bytes(100).join(members) + bytes(600))
    put_raw(storage, 5, 9)
    summary = run(storage)
    assert summary.succeeded, summary.failures
    assert "5 gzip members that do not end with a newline" in summary.warnings[0]
    merged = storage.read(key("0_9"))
    assert gzip.decompress(merged) == b"".join(record(0, n) + b"\n" for n in range(10))
    assert bytes(50) not in merged


def test_a_part_whose_lines_are_not_its_offsets_is_merged_with_a_warning(file_storage: Storage) -> None:
    put_raw(file_storage, 0, 4)
    put_raw(file_storage, 5, 9, data=content(5, 8))
    summary = run(file_storage)
    assert summary.succeeded
    assert summary.warnings == (f"{key('5-9')} holds 4 lines, but its name states 5 offsets",)
    assert len(ingested(file_storage)) == 9


def test_a_delete_that_fails_for_one_key_is_finished_by_the_next_run(storage: Storage) -> None:
    put_small_day(storage)

    def delete_some(real: Callable[..., Any], keys: Iterable[str]) -> None:
        keys = list(keys)
        real([each for each in keys if each != key("5-9")])
        if key("5-9") in keys:
            raise StorageError("Could not delete ...5-9: AccessDenied")

    summary = run(Meddled(storage, delete=delete_some))
    assert summary.failures == ("Could not delete ...5-9: AccessDenied",)
    assert marker_state(storage)[0] is MarkerState.FAILED
    assert "0_5-9.jsonl.gz" in names(storage)
    assert ingested(storage) == small_day_records()

    again = run(storage)
    assert again.succeeded
    assert again.finished == (key("0_14"),)
    assert names(storage) == COALESCED
    assert ingested(storage) == small_day_records()


def test_an_existence_check_that_fails_overwrites_nothing(storage: Storage) -> None:
    put_small_day(storage)
    error = StorageUnavailableError("Could not check it: 503")
    summary = run(Meddled(storage, head=fails_once(lambda name: name == key("0_14"), error)))
    assert summary.failures == (str(error),)
    assert "0_0-4.jsonl.gz" in names(storage)
    assert ingested(storage) == small_day_records()


def test_a_name_that_is_taken_unnoticed_is_not_overwritten(storage: Storage) -> None:
    put_small_day(storage)
    other = gzip.compress(b"somebody else's\n")

    def blind_head(real: Callable[..., Any], name: str) -> Any:
        if name != key("0_14"):
            return real(name)
        if not taken:
            taken.append(name)
            storage.write(name, other)
            return None
        return real(name)

    taken: list[str] = []
    summary = run(Meddled(storage, head=blind_head))
    assert len(summary.failures) == 1
    assert "does not hold it. Neither was changed" in summary.failures[0]
    assert storage.read(key("0_14")) == other
    assert {"0_0-4.jsonl.gz", "0_5-9.jsonl.gz", "0_10-14.jsonl.gz"} <= set(names(storage))


def test_a_name_taken_twice_by_other_content_loses_and_doubles_nothing(storage: Storage) -> None:
    put_small_day(storage)
    others = {key("0_14"): gzip.compress(b"one\n"), f"{key('0_14')}.2": gzip.compress(b"two\n")}
    for name, data in others.items():
        storage.write(name, data)
    before = {name: storage.read(f"{PREFIX}data.businessAudit_{name}") for name in names(storage)}
    for _ in range(2):
        summary = run(storage)
        assert len(summary.failures) == 1
        assert key("0_14") in summary.failures[0]
        assert marker_state(storage)[0] is MarkerState.FAILED
        assert {name: storage.read(name) for name in others} == others
        assert all(
            storage.read(f"{PREFIX}data.businessAudit_{n}") == before[n]
            for n in before
            if n.startswith(("0_0-", "0_5-", "0_10-"))
        )
    assert COALESCED[1:] == [name for name in names(storage) if name in COALESCED[1:]]


def test_a_name_taken_by_the_same_content_is_finished(storage: Storage) -> None:
    put_small_day(storage)
    storage.write(key("0_14"), content(0, 4) + content(5, 9) + content(10, 14))
    summary = run(storage)
    assert summary.succeeded
    assert summary.finished == (key("0_14"),)
    assert names(storage) == COALESCED
    assert ingested(storage) == small_day_records()


def test_raw_objects_written_again_after_coalescing_are_removed_again(file_storage: Storage) -> None:
    put_small_day(file_storage)
    first = run(file_storage)
    put_small_day(file_storage)
    second = run(file_storage)
    assert second.succeeded
    assert second.after == first.after
    assert len(second.finished) == 3


def test_a_raw_object_written_again_with_other_content_is_kept(file_storage: Storage) -> None:
    put_small_day(file_storage)
    run(file_storage)
    put_raw(file_storage, 5, 9, data=gzip.compress(b"other records\n" * 5))
    summary = run(file_storage)
    assert len(summary.failures) == 1
    assert "does not hold it" in summary.failures[0]
    assert "0_5-9.jsonl.gz" in names(file_storage)


def test_the_same_bytes_twice_count_as_two_objects(file_storage: Storage) -> None:
    same = gzip.compress(b"same\n" * 5, mtime=0)
    for first in (0, 5):
        put_raw(file_storage, first, first + 4, data=same)
    file_storage.write(key("0_9"), same)  # holds them once
    assert not run(file_storage).succeeded
    assert names(file_storage) == ["0_0-4.jsonl.gz", "0_0_9.jsonl.gz", "0_5-9.jsonl.gz"]


@pytest.mark.parametrize("other", ["5_14", "0_4", "0_9.2"])
def test_coalesced_objects_that_overlap_make_it_failed_with_their_names(file_storage: Storage, other: str) -> None:
    put_raw(file_storage, 0, 4)
    for first in (20, 25):
        put_raw(file_storage, first, first + 4)
    file_storage.write(key("0_9"), content(0, 9))
    offsets, _, copy = other.partition(".")
    name = key(offsets) + (f".{copy}" if copy else "")
    file_storage.write(name, content(5, 14))
    summary = run(file_storage)
    assert not summary.succeeded
    assert key("0_9") in summary.failures[0]
    assert name in summary.failures[0]
    assert marker_state(file_storage)[0] is MarkerState.FAILED
    # What may be needed to decide between the two is kept; what has nothing to do with them is merged.
    assert "0_0-4.jsonl.gz" in names(file_storage)
    assert "0_20_29.jsonl.gz" in names(file_storage)


def test_a_coalesced_object_with_joined_records_is_no_reason_to_delete(file_storage: Storage) -> None:
    parts = [content(0, 4, final_newline=False), content(5, 9)]
    for first, data in zip((0, 5), parts, strict=True):
        put_raw(file_storage, first, first + 4, data=data)
    file_storage.write(key("0_9"), b"".join(parts))
    summary = run(file_storage)
    assert "joined to the next one" in summary.failures[0]
    assert len(names(file_storage)) == 3

    file_storage.delete([key("0_9")])
    assert run(file_storage).succeeded
    assert len(ingested(file_storage)) == 10


def test_what_does_not_read_back_as_written_is_removed_and_its_raw_objects_are_kept(storage: Storage) -> None:
    put_small_day(storage)

    def open_damaged(real: Callable[..., Any], name: str, **options: Any) -> Any:
        stream = real(name, **options)
        if name == key("0_14"):
            stream.read(1)
        return stream

    summary = run(Meddled(storage, open=open_damaged))
    assert "did not read back as written" in summary.failures[0]
    assert "0_0_14.jsonl.gz" not in names(storage)
    assert ingested(storage) == small_day_records()
    assert run(storage).succeeded


def test_a_full_disk_leaves_everything_as_it_was(file_storage: Storage) -> None:
    put_small_day(file_storage)

    def no_space(real: Callable[..., Any], name: str, **options: Any) -> Any:
        raise StorageUnavailableError("Could not write it: the disk is full. Free some space, then run again.")

    summary = run(Meddled(file_storage, upload=no_space))
    assert len(summary.failures) == 3
    assert len(names(file_storage)) == 8
    state, reason = marker_state(file_storage)
    assert state is MarkerState.FAILED
    assert reason is not None
    assert reason.startswith("3 batches failed; the first: Could not write it")


def test_an_object_that_changes_before_it_is_merged_leaves_its_batch(storage: Storage) -> None:
    put_small_day(storage)
    other = gzip.compress(b"other\n" * 5)
    changed: list[str] = []

    def change_then_open(real: Callable[..., Any], name: str, **options: Any) -> Any:
        if name == key("5-9") and not changed:
            changed.append(name)
            put_raw(storage, 5, 9, data=other)
        return real(name, **options)

    summary = run(Meddled(storage, read_small=change_then_open))
    assert len(summary.failures) == 1
    assert key("5-9") in summary.failures[0]
    assert storage.read(key("5-9")) == other
    assert "0_0_14.jsonl.gz" not in names(storage)


def test_a_listing_that_fails_ends_as_failed_with_the_reason(file_storage: Storage) -> None:
    put_small_day(file_storage)
    error = StorageUnavailableError("Could not list it: 503")
    with pytest.raises(StorageUnavailableError):
        run(Meddled(file_storage, list=fails_once(lambda _: True, error)))
    assert marker_state(file_storage) == (MarkerState.FAILED, f"StorageUnavailableError: {error}")


def test_progress_only_grows_and_ends_with_everything(file_storage: Storage) -> None:
    put_small_day(file_storage)
    put_raw(file_storage, 5, 9, data=b"not gzip")
    seen: list[CoalesceProgress] = []
    run(file_storage, progress=seen.append)
    assert [p.objects_done for p in seen] == sorted(p.objects_done for p in seen)
    last = seen[-1]
    assert (last.batches_done, last.objects_done, last.bytes_done) == (last.batches, last.objects, last.bytes)
    assert (last.batches, last.objects) == (3, 8)


def test_batches_are_at_work_at_the_same_time(file_storage: Storage) -> None:
    put_small_day(file_storage)
    together = threading.Barrier(3)

    def meet(real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        together.wait(PATIENCE_SECONDS)  # one upload after the other would break it
        return real(*arguments, **options)

    assert run(Meddled(file_storage, upload=meet)).succeeded
    assert names(file_storage) == COALESCED


def test_a_run_that_is_stopped_completes_and_deletes_nothing_more(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_small_day(storage)
    before = names(storage)
    one_goes_first, stopping = threading.Lock(), threading.Event()
    changed: list[object] = []

    class Batches(ThreadPoolExecutor):
        def shutdown(self, *arguments: Any, **options: Any) -> None:
            stopping.set()
            super().shutdown(*arguments, **options)

    def stop(_: CoalesceProgress) -> None:
        if not stopping.is_set():
            raise KeyboardInterrupt

    def upload(real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if not one_goes_first.acquire(blocking=False):
            assert stopping.wait(PATIENCE_SECONDS)  # the others go on where the run is being stopped
        return real(*arguments, **options)

    def delete(real: Callable[..., Any], keys: Iterable[str]) -> None:
        changed.append(keys)
        real(keys)

    monkeypatch.setattr(coalescer_run, "ThreadPoolExecutor", Batches)
    with pytest.raises(KeyboardInterrupt):
        run(Meddled(storage, upload=upload, delete=delete), progress=stop)
    assert (changed, names(storage)) == ([], before)
    assert marker_state(storage) == (MarkerState.FAILED, "stopped by KeyboardInterrupt")
    assert ingested(storage) == small_day_records()
    assert run(storage).succeeded
    assert names(storage) == COALESCED


def test_the_share_that_is_done_is_of_requests_and_of_bytes() -> None:
    whole = CoalesceProgress(batches=1, objects=1000, bytes=256 * 1024 * 1000)
    assert whole.share_done == 0.0
    assert replace(whole, objects_done=500, bytes_done=whole.bytes // 2).share_done == pytest.approx(0.5)
    assert replace(whole, objects_done=1000).share_done == pytest.approx(0.5)
    assert CoalesceProgress(batches=0, objects=0, bytes=0).share_done == 1.0


def test_deletes_touch_only_raw_objects_of_the_day(file_storage: Storage) -> None:
    put_small_day(file_storage)
    deleted: list[str] = []

    def note(real: Callable[..., Any], keys: Iterable[str]) -> None:
        deleted.extend(keys)
        real(deleted)

    run(Meddled(file_storage, delete=note))
    assert len(deleted) == 8
    assert all(in_prefix([each]) and "-" in each.rsplit("_", 1)[-1] for each in deleted)


def test_large_objects_get_an_index_of_their_members_and_small_ones_none(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_small_day(storage)
    put_raw(storage, 110, 114, 1, data=content(110, 114, 1, final_newline=False))
    lines = b"\n\n" + gzip.decompress(content(10, 14)).replace(b"\n", b"\n \r\n", 2)
    put_raw(storage, 10, 14, data=gzip.compress(lines[:90]) + gzip.compress(lines[90:].rstrip(b"\n")))
    monkeypatch.setattr(member_index, "GROUP_BYTES", len(content(20, 24)) + 1)
    run(storage)
    assert indexed(storage) == [COALESCED[0], COALESCED[2]]
    assert names(storage) == COALESCED  # nothing that a listing of the day shows


def test_an_index_goes_with_its_object_and_one_of_another_object_fits_nothing(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member_index, "GROUP_BYTES", 1)
    put_small_day(storage)
    run(storage)
    assert indexed(storage) == COALESCED
    storage.delete([key("0_14"), key("20_29")])
    put_raw(storage, 0, 2)
    put_raw(storage, 3, 14)
    other = Shard(index=1, count=2)
    coalesce(storage, AUDIT.on(DAY), shard=other)  # not its objects
    assert len(list(storage.list(INDEXES))) == 3
    run(storage)
    assert indexed(storage) == [COALESCED[0], COALESCED[2]]  # and of the first, the new one
    assert len(list(storage.list(INDEXES))) == 2
    storage.write(key("100_114", 1), content(100, 114, 1) + content(1, 1))  # rewritten by somebody else
    assert indexed(storage) == [COALESCED[0]]


def test_an_index_that_cannot_be_written_is_a_warning(file_storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_index, "GROUP_BYTES", 1)
    put_small_day(file_storage)
    error = StorageUnavailableError("Could not write it: refused")
    refused = fails_once(lambda name: name.startswith(INDEXES), error)
    summary = run(Meddled(file_storage, upload=refused))
    assert summary.succeeded
    assert names(file_storage) == COALESCED
    assert [str(error) in warning for warning in summary.warnings] == [True]
    assert len(indexed(file_storage)) == 2


def test_the_summary_is_plain_json(file_storage: Storage) -> None:
    put_small_day(file_storage)
    file_storage.write(f"{PREFIX}notes.txt", b"x")
    value = run(file_storage).to_json()
    assert value["storage_day"] == "2023-03-26"
    assert [left["key"] for left in value["left_alone"]] == [f"{PREFIX}notes.txt"]
    assert value["succeeded"] is True


def test_large_objects_are_merged_in_a_few_megabytes_of_memory(file_storage: Storage) -> None:
    noise = random.Random(1).randbytes(1_000_000).replace(b"\n", b"x") + b"\n"
    large = gzip.compress(noise, compresslevel=0, mtime=0) * 24
    swelling = gzip.compress((b"\0" * 999_999 + b"\n") * 200, mtime=0)
    for number, data in enumerate((large, swelling, large)):
        put_raw(file_storage, number, number, data=data)
    del noise, large, swelling, data
    tracemalloc.start()
    summary = run(file_storage)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert summary.succeeded
    assert summary.after.bytes > 48_000_000
    assert peak_bytes < 12_000_000
