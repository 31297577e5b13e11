import json
import os
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.core.storage_keys import mark_key, pinned_input_history_key, pinned_input_key
from cdi_dagster.ingestion.pinning import pin_storage_day, read_pinned_input, require_unchanged
from cdi_dagster.published.mark import Mark
from cdi_dagster.published.read import read_mark
from cdi_dagster.storage import Storage, StorageError, open_storage, storage_failure
from cdi_dagster.storage.roots import Roots
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.s3_server import new_s3_storage

DAY = date(2023, 3, 26)
PREFIX = AUDIT.on(DAY).corporate_prefix


def key(offsets: str) -> str:
    return f"{PREFIX}data.businessAudit_0_{offsets}.jsonl.gz"


@pytest.fixture
def corporate(tmp_path: Path) -> Storage:
    storage = open_storage((tmp_path / "corporate").as_uri())
    for offsets in ("0_9", "10-19", "30-39"):
        storage.write(key(offsets), offsets.encode())
    return storage


@pytest.fixture
def published(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "published").as_uri())


def pinned(corporate: Storage, published: Storage) -> PinnedInput:
    return pin_storage_day(Roots(corporate=corporate, published=published), AUDIT.on(DAY))


def change(corporate: Storage, published_input: PinnedInput) -> CdiError:
    with pytest.raises(CdiError) as caught:
        require_unchanged(corporate, published_input)
    assert caught.value.failure_class is FailureClass.INPUT_CHANGED
    return caught.value


def test_a_pinned_day_is_read_back_as_it_was_written(corporate: Storage, published: Storage) -> None:
    result = pinned(corporate, published)
    assert [o.key for o in result.objects] == [key("0_9"), key("10-19"), key("30-39")]
    assert [(gap.first_offset, gap.last_offset) for gap in result.gaps] == [(20, 29)]
    assert read_pinned_input(published, AUDIT.on(DAY)) == result


def test_every_pinned_input_is_kept_under_its_fingerprint(corporate: Storage, published: Storage) -> None:
    first = pinned(corporate, published)
    corporate.write(key("20-29"), b"late")
    second = pinned(corporate, published)
    assert first.fingerprint != second.fingerprint
    assert read_pinned_input(published, AUDIT.on(DAY)) == second
    for each in (first, second):
        kept = published.read(pinned_input_history_key(AUDIT.on(DAY), each.fingerprint))
        assert PinnedInput.from_json(json.loads(kept)) == each


def test_a_day_that_was_never_pinned_has_no_pinned_input_and_no_mark(published: Storage) -> None:
    assert read_pinned_input(published, AUDIT.on(DAY)) is None
    assert read_mark(published, AUDIT.on(DAY)) is None


def test_a_day_without_objects_is_refused_unless_it_is_allowed(published: Storage, tmp_path: Path) -> None:
    nothing = open_storage((tmp_path / "nothing").as_uri())
    with pytest.raises(CdiError, match="no objects under file:///.*businessAudit") as caught:
        pin_storage_day(Roots(corporate=nothing, published=published), AUDIT.on(DAY))
    assert caught.value.failure_class is FailureClass.INPUT_INVALID
    assert "allow_empty" in caught.value.next_step
    assert read_pinned_input(published, AUDIT.on(DAY)) is None

    empty = pin_storage_day(Roots(corporate=nothing, published=published), AUDIT.on(DAY), allow_empty=True)
    assert empty.objects == ()
    assert read_pinned_input(published, AUDIT.on(DAY)) == empty
    require_unchanged(nothing, empty)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.symlink_to("nothing"), "is a link to nothing"),
        (lambda path: path.symlink_to("/etc/passwd"), "is a link out of the root"),
        (os.mkfifo, "is neither a file nor a folder"),
    ],
    ids=["dangling", "outside", "pipe"],
)
def test_what_is_no_object_in_a_day_is_invalid_input_before_and_after_the_pin(
    corporate: Storage, published: Storage, tmp_path: Path, make: Callable[[Path], None], problem: str
) -> None:
    before = pinned(corporate, published)
    path = tmp_path / "corporate" / key("40-49")
    make(path)
    for attempt in (lambda: pinned(corporate, published), lambda: require_unchanged(corporate, before)):
        with pytest.raises(CdiError, match=problem) as caught:
            attempt()
        assert caught.value.failure_class is FailureClass.INPUT_INVALID
        assert caught.value.cause.startswith(str(path))
    assert read_pinned_input(published, AUDIT.on(DAY)) == before


def test_what_is_no_object_in_the_published_root_is_for_a_person_to_fix_and_no_defect(
    published: Storage, tmp_path: Path
) -> None:
    published.write("day/a", b"x")
    (tmp_path / "published" / "day" / "b").symlink_to("nothing")
    with pytest.raises(StorageError) as caught:
        list(published.list("day/"))
    failure = storage_failure(caught.value)
    assert failure.failure_class is FailureClass.JOB_FAILED
    assert "is a link to nothing" in failure.cause
    assert "Fix what the cause names" in failure.next_step


def test_an_input_that_cannot_be_pinned_leaves_the_previous_manifest(corporate: Storage, published: Storage) -> None:
    before = pinned(corporate, published)
    corporate.write(key("15-25"), b"overlap")
    with pytest.raises(CdiError, match="both state offsets from 15 to 19"):
        pinned(corporate, published)
    assert read_pinned_input(published, AUDIT.on(DAY)) == before


@pytest.mark.parametrize("gone", ["0_9", "30-39"])
def test_a_day_that_lacks_offsets_which_it_had_is_refused_unless_that_is_allowed(
    corporate: Storage, published: Storage, gone: str
) -> None:
    before = pinned(corporate, published)
    corporate.delete([key(gone)])

    with pytest.raises(CdiError, match="are in no object any more") as caught:
        pinned(corporate, published)

    assert caught.value.failure_class is FailureClass.OFFSETS_LOST
    assert key(gone) in caught.value.cause
    assert "allow_fewer_offsets" in caught.value.next_step
    assert read_pinned_input(published, AUDIT.on(DAY)) == before
    fewer = pin_storage_day(Roots(corporate=corporate, published=published), AUDIT.on(DAY), allow_fewer_offsets=True)
    assert read_pinned_input(published, AUDIT.on(DAY)) == fewer
    assert pinned(corporate, published) == fewer


def test_a_day_that_changes_while_it_is_listed_has_lost_nothing(
    corporate: Storage, published: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pinned(corporate, published)
    listings = [[stored for stored in corporate.list(PREFIX) if stored.key != key("30-39")]]
    present = corporate.list
    # What a folder may give while a coalescer merges: the raw object no more, and the coalesced one not yet.
    monkeypatch.setattr(corporate, "list", lambda *of, **more: listings.pop() if listings else present(*of, **more))

    with pytest.raises(CdiError) as caught:
        pinned(corporate, published)

    assert (caught.value.failure_class, key("30-39") in caught.value.cause) == (FailureClass.INPUT_CHANGED, True)
    assert read_pinned_input(published, AUDIT.on(DAY)) == before


def test_a_day_is_not_published_from_less_than_what_is_published(corporate: Storage, published: Storage) -> None:
    before = pinned(corporate, published)
    mark = Mark(
        fingerprint=before.fingerprint,
        correlation_id="run-1",
        collection_id=AUDIT.id,
        storage_day=DAY,
        published=30,
        rejected=0,
        record_bytes=300,
        published_bytes=0,
        parts=(),
        published_at=datetime.now(UTC),
    )
    published.write(mark_key(AUDIT.on(DAY)), mark.to_bytes())
    corporate.delete([key("30-39")])
    pin_storage_day(Roots(corporate=corporate, published=published), AUDIT.on(DAY), allow_fewer_offsets=True)

    with pytest.raises(CdiError, match="published with 30 offsets and has 20 now: offsets 30 to 39 of"):
        pinned(corporate, published)


def test_a_day_that_was_coalesced_or_got_more_since_is_pinned_again(corporate: Storage, published: Storage) -> None:
    pinned(corporate, published)
    corporate.write(key("10_29"), b"merged, with late data")
    corporate.delete([key("10-19")])

    assert [gap.first_offset for gap in pinned(corporate, published).gaps] == []


def test_every_page_of_a_listing_is_pinned(published: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdi_dagster.storage.s3._PAGE_KEYS", 10)
    corporate = new_s3_storage()
    for number in range(25):
        corporate.write(key(f"{number}-{number}"), b"x")
    result = pinned(corporate, published)
    assert (len(result.objects), result.gaps) == (25, ())
    require_unchanged(corporate, result)


def test_an_unchanged_day_passes(corporate: Storage, published: Storage) -> None:
    require_unchanged(corporate, pinned(corporate, published))


def test_a_pinned_object_that_is_gone_is_named_with_the_object_that_took_its_records(
    corporate: Storage, published: Storage
) -> None:
    before = pinned(corporate, published)
    corporate.delete([key("10-19")])
    assert "no other object states its offsets" in change(corporate, before).cause
    corporate.write(key("10_29"), b"merged")
    error = change(corporate, before)
    assert error.detail["key"] == key("10-19")
    assert "is gone; its offsets are in data.businessAudit_0_10_29.jsonl.gz now, written at 2" in error.cause
    assert "UTC" in error.cause


def test_a_pinned_object_that_was_written_again_is_named_with_the_time(corporate: Storage, published: Storage) -> None:
    before = pinned(corporate, published)
    corporate.write(key("30-39"), b"other content")
    error = change(corporate, before)
    assert error.detail["key"] == key("30-39")
    assert "with 5 bytes" in error.cause
    assert "now 13 bytes" in error.cause


def test_an_object_that_arrived_since_is_named(corporate: Storage, published: Storage) -> None:
    before = pinned(corporate, published)
    corporate.write(key("20-29"), b"late")
    assert change(corporate, before).cause.startswith(f"{key('20-29')} was written at 2")


def test_a_left_out_object_that_changed_is_named_too(corporate: Storage, published: Storage) -> None:
    corporate.write(key("0-9"), b"already merged")
    before = pinned(corporate, published)
    assert [left.key for left in before.left_out] == [key("0-9")]
    corporate.write(key("0-9"), b"written again")
    assert "was left out when the day was pinned and was written again" in change(corporate, before).cause
    corporate.delete([key("0-9")])
    assert change(corporate, before).detail["key"] == key("0-9")


@pytest.mark.parametrize("content", [b"{half", b"[]", b'{"format_version": 1}'])
def test_a_damaged_manifest_is_to_be_restored(published: Storage, content: bytes) -> None:
    published.write(pinned_input_key(AUDIT.on(DAY)), content)
    with pytest.raises(CdiError) as caught:
        read_pinned_input(published, AUDIT.on(DAY))
    assert caught.value.failure_class is FailureClass.INPUT_INVALID
    assert "allow_fewer_offsets where you have checked" in caught.value.next_step
