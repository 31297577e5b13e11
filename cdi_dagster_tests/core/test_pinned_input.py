"""What is pinned, what is left out, what is missing and what is refused."""

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.listing import ListingDigest, StoredObject, listing_fingerprint
from cdi_dagster.core.object_names import parse_object_name
from cdi_dagster.core.pinned_input import OffsetGap, PinnedInput, pin
from cdi_dagster_tests.collections import AUDIT

DAY = date(2023, 3, 26)
ROOT = "file:///corporate"


def stored(name: str, *, size: int = 10, etag: str | None = None, version_id: str | None = None) -> StoredObject:
    return StoredObject(
        key=f"{AUDIT.on(DAY).corporate_prefix}{name}",
        size_bytes=size,
        etag=etag or f"etag of {name}",
        version_id=version_id,
        modified_at=datetime(2023, 3, 26, 12, tzinfo=UTC),
    )


def raw(first: int, last: int, kafka_partition: int = 0, **more: object) -> StoredObject:
    return stored(f"data.businessAudit_{kafka_partition}_{first}-{last}.jsonl.gz", **more)  # type: ignore[arg-type]


def coalesced(first: int, last: int, kafka_partition: int = 0, copy: int = 1, **more: object) -> StoredObject:
    suffix = f".{copy}" if copy > 1 else ""
    return stored(f"data.businessAudit_{kafka_partition}_{first}_{last}.jsonl.gz{suffix}", **more)  # type: ignore[arg-type]


def pinned(objects: Iterable[StoredObject]) -> PinnedInput:
    return pin(AUDIT.on(DAY), ROOT, objects)


def names(keys: Iterable[str]) -> list[str]:
    return [key.rsplit("/", 1)[-1] for key in keys]


def test_objects_come_in_order_of_partition_and_offset() -> None:
    result = pinned([coalesced(0, 9, 10), raw(10, 19, 2), coalesced(0, 9, 2)])
    assert names(o.key for o in result.objects) == [
        "data.businessAudit_2_0_9.jsonl.gz",
        "data.businessAudit_2_10-19.jsonl.gz",
        "data.businessAudit_10_0_9.jsonl.gz",
    ]
    assert result.input_bytes == 30
    assert result.offset_count == 30
    assert result.gaps == ()
    assert result.left_out == ()


def test_raw_objects_that_a_coalesced_one_covers_are_left_out_and_named() -> None:
    result = pinned([raw(0, 4), raw(5, 9), coalesced(0, 9), raw(10, 19)])
    assert names(o.key for o in result.objects) == [
        "data.businessAudit_0_0_9.jsonl.gz",
        "data.businessAudit_0_10-19.jsonl.gz",
    ]
    assert names(left.key for left in result.left_out) == [
        "data.businessAudit_0_0-4.jsonl.gz",
        "data.businessAudit_0_5-9.jsonl.gz",
    ]
    assert {left.covered_by for left in result.left_out} == {coalesced(0, 9).key}


def test_a_raw_object_with_the_same_offsets_as_a_coalesced_one_is_left_out() -> None:
    result = pinned([raw(0, 9), coalesced(0, 9)])
    assert names(o.key for o in result.objects) == ["data.businessAudit_0_0_9.jsonl.gz"]


def test_an_exact_copy_of_a_coalesced_object_is_left_out() -> None:
    result = pinned([coalesced(0, 9, etag="x"), coalesced(0, 9, copy=2, etag="x")])
    assert names(left.key for left in result.left_out) == ["data.businessAudit_0_0_9.jsonl.gz.2"]


@pytest.mark.parametrize(
    "objects",
    [
        [raw(0, 9), raw(5, 14)],
        [raw(0, 9), raw(0, 9, size=11, etag="other"), coalesced(20, 29)],
        [raw(0, 9), raw(3, 4)],
        [coalesced(0, 9), coalesced(9, 12)],
        [coalesced(0, 9), raw(5, 14)],
        [coalesced(0, 9), coalesced(0, 9, copy=2)],
        [coalesced(0, 9), coalesced(2, 5)],
        [raw(0, 19), coalesced(0, 9)],
    ],
    ids=lambda objects: " ".join(names(o.key for o in objects)),
)
def test_overlaps_that_would_publish_records_twice_are_refused(objects: list[StoredObject]) -> None:
    if len({o.key for o in objects}) < len(objects):
        objects = [objects[0], stored("data.businessAudit_0_0-8.jsonl.gz"), *objects[2:]]
    with pytest.raises(CdiError, match="twice") as caught:
        pinned(objects)
    assert caught.value.failure_class is FailureClass.INPUT_INVALID
    assert caught.value.detail["keys"]


def test_missing_offsets_are_reported_per_kafka_partition() -> None:
    result = pinned([raw(0, 9), raw(15, 19), raw(20, 29, 1), raw(31, 31, 1)])
    assert result.gaps == (
        OffsetGap(kafka_partition=0, first_offset=10, last_offset=14),
        OffsetGap(kafka_partition=1, first_offset=30, last_offset=30),
    )
    assert [gap.offset_count for gap in result.gaps] == [5, 1]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (stored("sub/data.businessAudit_0_0-9.jsonl.gz"), "in a folder below the storage day"),
        (stored("_SUCCESS"), "cannot be pinned"),
        (stored("notes.txt"), "cannot be pinned"),
        (stored("db.core.claimant_0_0-9.jsonl.gz"), "is of topic db.core.claimant"),
        (raw(0, 9, size=0), "is empty"),
    ],
)
def test_what_is_not_an_object_of_this_collection_is_refused_by_name(bad: StoredObject, message: str) -> None:
    with pytest.raises(CdiError, match=message) as caught:
        pinned([raw(100, 109), bad])
    assert caught.value.failure_class is FailureClass.INPUT_INVALID
    assert caught.value.detail["key"] == bad.key


def test_nothing_listed_pins_nothing() -> None:
    result = pinned([])
    assert result.objects == ()
    assert result.offset_count == 0


def test_the_manifest_reads_back_as_it_was_written() -> None:
    result = pinned([raw(0, 4), coalesced(0, 9, version_id="v1"), raw(12, 19)])
    assert PinnedInput.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_the_manifest_is_small_and_read_back_as_what_is_shown_is() -> None:
    listing = [raw(0, 4), coalesced(0, 9, version_id="v1"), raw(12, 19), *(raw(n, n) for n in range(20, 500))]
    result = pinned(listing)
    manifest = json.dumps(result.to_manifest())
    assert PinnedInput.from_json(json.loads(manifest)) == result
    assert len(manifest) < len(json.dumps(result.to_json())) / 2
    alone = pinned([raw(0, 4)])
    assert PinnedInput.from_json(json.loads(json.dumps(alone.to_manifest()))) == alone
    assert PinnedInput.from_json(json.loads(json.dumps(pinned([]).to_manifest()))) == pinned([])


_MANIFEST_OF_FORMAT_1 = """
{"format_version": 1, "collection": "data:businessAudit", "storage_day": "2023-03-26", "corporate_root": "s3://c",
 "fingerprint": "f", "totals": {"objects": 1, "bytes": 3, "offsets": 5},
 "objects": [{"key": "p/data.businessAudit_0_0-4.jsonl.gz", "size_bytes": 3, "etag": "e", "version_id": null,
   "kafka_partition": 0, "first_offset": 0, "last_offset": 4}],
 "left_out": [{"key": "a", "covered_by": "b", "why": "c"}],
 "gaps": [{"kafka_partition": 0, "first_offset": 5, "last_offset": 6}]}
"""


def test_a_manifest_of_an_earlier_version_is_read() -> None:
    found = PinnedInput.from_json(json.loads(_MANIFEST_OF_FORMAT_1))
    assert (found.objects[0].key, found.offset_count, found.gaps[0].offset_count) == (
        "p/data.businessAudit_0_0-4.jsonl.gz",
        5,
        2,
    )
    assert PinnedInput.from_json(found.to_manifest()) == found


@pytest.mark.parametrize("broken", [{}, {"format_version": 99}, {"format_version": 1, "collection": "a:b"}])
def test_a_broken_manifest_says_to_pin_again(broken: dict[str, object]) -> None:
    with pytest.raises(CdiError, match="Restore it from a version of the bucket") as caught:
        PinnedInput.from_json(broken)
    assert caught.value.failure_class is FailureClass.INPUT_INVALID


@st.composite
def listings(draw: st.DrawFn) -> list[StoredObject]:
    """Days as K2HB and a coalescer that may have died anywhere leave them: resolvable by construction."""
    objects: list[StoredObject] = []
    for kafka_partition in range(draw(st.integers(1, 3))):
        offset = draw(st.integers(0, 50))
        for _ in range(draw(st.integers(0, 5))):
            offset += draw(st.sampled_from([0, 0, 0, 3]))
            bounds = [offset]
            for _ in range(draw(st.integers(1, 4))):
                bounds.append(bounds[-1] + draw(st.integers(1, 9)))
            parts = [raw(a, b - 1, kafka_partition) for a, b in zip(bounds, bounds[1:], strict=False)]
            merged = draw(st.booleans())
            keep = draw(st.integers(0, len(parts))) if merged else 0
            objects += parts[keep:]
            if merged:
                objects.append(coalesced(bounds[0], bounds[-1] - 1, kafka_partition))
            offset = bounds[-1]
    return draw(st.permutations(objects))


@given(listings())
def test_every_listed_offset_is_read_exactly_once(listing: list[StoredObject]) -> None:
    result = pinned(listing)
    read = [
        (o.name.kafka_partition, offset)
        for o in result.objects
        for offset in range(o.name.first_offset, o.name.last_offset + 1)
    ]
    assert len(read) == len(set(read))
    listed = {
        (name.kafka_partition, offset)
        for name in (parse_object_name(o.key) for o in listing)
        for offset in range(name.first_offset, name.last_offset + 1)
    }
    assert set(read) == listed
    missing = {
        (gap.kafka_partition, offset) for gap in result.gaps for offset in range(gap.first_offset, gap.last_offset + 1)
    }
    assert missing.isdisjoint(listed)
    assert {o.key for o in result.objects} | {left.key for left in result.left_out} == {o.key for o in listing}


@given(listings())
def test_the_fingerprint_ignores_order_and_sees_every_change(listing: list[StoredObject]) -> None:
    before = listing_fingerprint(listing)
    assert listing_fingerprint(reversed(listing)) == before
    digest = ListingDigest()
    for stored in sorted(listing, key=lambda stored: stored.key):
        digest.add(stored)
    assert digest.fingerprint() == before
    assert listing_fingerprint([*listing, raw(10_000, 10_001)]) != before
    for index, changed in enumerate(listing):
        others = listing[:index] + listing[index + 1 :]
        assert listing_fingerprint(others) != before
        rewritten = StoredObject(
            key=changed.key,
            size_bytes=changed.size_bytes,
            etag=changed.etag + "'",
            version_id=changed.version_id,
            modified_at=changed.modified_at,
        )
        assert listing_fingerprint([*others, rewritten]) != before
