"""The summary that people used to work out by hand."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cdi_dagster.core.diagnosis import DayVolume, day_volume, diagnose
from cdi_dagster.core.listing import StoredObject

USUAL = DayVolume(objects=100, bytes=1_000_000_000, offsets=700_000)
HISTORY = [DayVolume(objects=100 + n, bytes=1_000_000_000 + n * 1_000_000, offsets=700_000 + n) for n in range(-7, 7)]


def volume(objects: float, size: float) -> DayVolume:
    return DayVolume(
        objects=int(USUAL.objects * objects), bytes=int(USUAL.bytes * size), offsets=int(USUAL.offsets * size)
    )


@pytest.mark.parametrize(
    ("day", "summary"),
    [
        (volume(1, 1), ": usual volume"),
        (volume(1.2, 1.4), ": usual volume"),
        (volume(3.1, 3.1), ": 3.1x the usual volume"),
        (volume(1, 3.1), ": 3.1x the usual volume"),
        (volume(11, 1), ": usual volume in 11x the usual number of objects: K2HB is not batching"),
        (volume(20, 2), ": 2.0x the usual volume in 20x the usual number of objects: K2HB is not batching"),
        (volume(0.3, 1), ": usual volume in 0.3x the usual number of objects"),
        (volume(0.2, 0.2), ": 0.2x the usual volume"),
        (DayVolume(objects=0, bytes=0, offsets=0), ": no objects, where there usually are some"),
    ],
)
def test_the_summary_names_what_is_unusual(day: DayVolume, summary: str) -> None:
    assert diagnose(day, HISTORY).summary.endswith(summary)


def test_the_summary_opens_with_the_figures() -> None:
    assert diagnose(USUAL, HISTORY).summary == (
        "100 objects, 1.0 GB, 700,000 records by offsets, mean object 10.0 MB: usual volume"
    )


def test_too_little_history_is_said_and_days_without_objects_are_no_history() -> None:
    empty = DayVolume(objects=0, bytes=0, offsets=0)
    diagnosis = diagnose(USUAL, [empty] * 12 + HISTORY[:2])
    assert diagnosis.usual is None
    assert diagnosis.summary.endswith("only 2 earlier days to compare with")


def test_a_listing_is_counted_and_names_without_offsets_count_as_objects_only() -> None:
    def stored(name: str, size: int) -> StoredObject:
        now = datetime(2023, 3, 26, tzinfo=UTC)
        return StoredObject(key=f"p/{name}", size_bytes=size, etag="e", version_id=None, modified_at=now)

    listing = [stored("data.businessAudit_0_0-9.jsonl.gz", 5), stored("t_1_0_4.jsonl.gz", 7), stored("odd", 1)]
    assert day_volume(listing) == DayVolume(objects=3, bytes=13, offsets=15, coalesced_objects=1)
    assert day_volume(listing, most_objects=2) == DayVolume(
        objects=2, bytes=12, offsets=15, coalesced_objects=1, is_cut_off=True
    )
    assert day_volume(listing, most_objects=3) == day_volume(listing)
    assert day_volume([*listing, stored(".DS_Store", 6148)]) == day_volume(listing)
    assert day_volume([]).mean_object_bytes == 0


COALESCED_HISTORY = [replace(volume, objects=3, coalesced_objects=3) for volume in HISTORY]


def test_a_raw_day_after_coalesced_ones_is_not_blamed_for_its_many_objects() -> None:
    diagnosis = diagnose(volume(1, 3.1), COALESCED_HISTORY)
    assert not diagnosis.objects_compare
    assert ": 3.1x the usual volume; this day is not coalesced yet" in diagnosis.summary
    assert "batching" not in diagnosis.summary


def test_what_a_coalescer_left_in_many_objects_does_not_speak_of_k2hb() -> None:
    diagnosis = diagnose(replace(HISTORY[0], objects=12, coalesced_objects=12), COALESCED_HISTORY)
    assert "usual number of objects" in diagnosis.summary
    assert "batching" not in diagnosis.summary


def test_raw_days_are_compared_with_what_earlier_days_were_when_raw() -> None:
    diagnosis = diagnose(volume(11, 1), COALESCED_HISTORY[:9] + HISTORY[:5])
    assert diagnosis.objects_compare
    assert diagnosis.summary.endswith("12x the usual number of objects: K2HB is not batching")


def test_a_listing_too_long_to_count_is_said_to_be_so() -> None:
    summary = diagnose(replace(volume(200, 0.4), is_cut_off=True), HISTORY).summary
    assert summary.startswith("more than 20,000 objects")
    assert "more than 200x the usual number of objects, not all counted" in summary
    assert (
        "at least 2.0x the usual volume" in diagnose(replace(volume(9, 2), is_cut_off=True), COALESCED_HISTORY).summary
    )
