"""What is merged with what: every object exactly once, in order, within the limits, never over a gap."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi_dagster.coalescer.plan import Plan, plan_batches
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.object_names import parse_object_name
from cdi_dagster_tests.coalescer.days import PREFIX, key
from cdi_dagster_tests.collections import AUDIT


def stored(name: str, size_bytes: int = 10) -> StoredObject:
    return StoredObject(
        key=name, size_bytes=size_bytes, etag=name, version_id=None, modified_at=datetime(2023, 3, 26, tzinfo=UTC)
    )


def plan(*names: str, max_bytes: int = 1000, max_objects: int = 100) -> Plan:
    return plan_batches(AUDIT, PREFIX, map(stored, names), max_bytes=max_bytes, max_objects=max_objects)


def shape(result: Plan) -> dict[str, list[str]]:
    return {batch.key: [source.stored.key for source in batch.sources] for batch in result.batches}


def why(result: Plan, name: str) -> str:
    return next(left.why for left in result.left_alone if left.key == name)


def test_neighbours_of_one_kafka_partition_become_one_batch_in_offset_order() -> None:
    result = plan(key("10-99"), key("0-4"), key("5-9"), key("0-4", 1), key("5-9", 1))
    assert shape(result) == {
        key("0_99"): [key("0-4"), key("5-9"), key("10-99")],
        key("0_9", 1): [key("0-4", 1), key("5-9", 1)],
    }
    assert result.left_alone == ()


def test_a_gap_between_offsets_is_never_inside_a_batch() -> None:
    assert shape(plan(key("0-4"), key("5-9"), key("11-14"), key("15-19"))) == {
        key("0_9"): [key("0-4"), key("5-9")],
        key("11_19"): [key("11-14"), key("15-19")],
    }


def test_a_single_raw_object_is_left_alone() -> None:
    result = plan(key("0-4"), key("7-9"))
    assert result.batches == ()
    assert why(result, key("0-4")) == "nothing to merge it with"
    assert all(left.expected for left in result.left_alone)


def test_a_batch_ends_at_the_size_and_at_the_count() -> None:
    names = [key(f"{n}-{n}") for n in range(10)]
    assert [len(batch.sources) for batch in plan(*names, max_bytes=35).batches] == [3, 3, 3]
    assert [len(batch.sources) for batch in plan(*names, max_objects=4).batches] == [4, 4, 2]
    assert plan(*names, max_bytes=5).batches == ()


def test_coalesced_objects_are_left_alone_and_part_the_raw_ones() -> None:
    result = plan(key("0-4"), key("5_9"), key("10-14"))
    assert result.batches == ()
    assert why(result, key("5_9")) == "it is a coalesced object"


def test_raw_objects_within_a_coalesced_one_are_to_be_compared_with_it() -> None:
    result = plan(key("0_9"), key("0-4"), key("5-9"), key("10-14"), key("15-19"))
    begun, free = result.batches
    assert begun.stored_as is not None
    assert begun.stored_as.key == begun.key == key("0_9")
    assert [source.stored.key for source in begun.sources] == [key("0-4"), key("5-9")]
    assert free.key == key("10_19")


def test_a_numbered_copy_counts_as_a_coalesced_object() -> None:
    result = plan(key("0_9") + ".2", key("5-9"))
    assert [batch.key for batch in result.batches] == [key("0_9") + ".2"]


@pytest.mark.parametrize("other", ["3-8", "0_6", "004-4"])
def test_an_overlap_leaves_both_sides_alone_with_the_reason(other: str) -> None:
    result = plan(key("0-4"), key("5-9"), key(other), key("10-14"), key("15-19"))
    assert any(key("15-19") in sources for sources in shape(result).values())
    touched = {left.key for left in result.left_alone if not left.expected}
    assert touched
    assert all("states some of the same offsets" in why(result, each) for each in touched)
    assert not touched & {each for sources in shape(result).values() for each in sources}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"{PREFIX}notes.txt", "is not <topic>"),
        (f"{PREFIX}data.equality_0_0-4.jsonl.gz", "of topic data.equality"),
        (f"{PREFIX}sub/data.businessAudit_0_5-9.jsonl.gz", "in a folder below"),
        (key("5-9") + ".2", "no numbered copies"),
    ],
)
def test_what_is_not_a_raw_object_of_the_day_is_left_alone_with_the_reason(name: str, reason: str) -> None:
    result = plan(name, key("0-4"))
    assert result.batches == ()
    assert reason in why(result, name)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        plan(key("0-4"), max_bytes=0)


def test_very_many_tiny_objects_are_planned_in_a_moment() -> None:
    listing = [stored(key(f"{n}-{n}")) for n in range(20_000)]
    result = plan_batches(AUDIT, PREFIX, listing, max_objects=1000)
    assert [len(batch.sources) for batch in result.batches] == [1000] * 20


def test_a_hundred_thousand_names_are_planned_in_twenty_megabytes() -> None:
    def listing() -> Iterator[StoredObject]:
        for kafka_partition in range(4):
            for first in sorted(range(0, 250_000, 10), key=str):
                yield stored(key(f"{first}-{first + 9}", kafka_partition))

    tracemalloc.start()
    result = plan_batches(AUDIT, PREFIX, listing())
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(result.batches), result.source_count, result.listed_offsets) == (12, 100_000, 1_000_000)
    assert peak_bytes < 26_000_000  # of which the ETags here are 16: names of 100 bytes


def test_a_source_is_the_object_that_was_listed_whatever_its_name() -> None:
    listed = [stored(key(offsets)) for offsets in ("0-4", "005-9", "10-14")]
    listed.append(replace(stored(key("15-19")), version_id="v1"))
    (batch,) = plan_batches(AUDIT, PREFIX, listed).batches
    assert [source.stored for source in batch.sources] == listed
    assert batch.sources.keys() == [each.key for each in listed]
    assert [source.name for source in batch.sources[1:3]] == [parse_object_name(each.key) for each in listed[1:3]]


def test_an_offset_that_kafka_does_not_have_is_left_alone() -> None:
    huge = key(f"{2**63}-{2**63}")
    assert "no offset that large" in why(plan(huge, key("0-4")), huge)


objects = st.tuples(st.integers(0, 1), st.integers(0, 40), st.integers(0, 6), st.sampled_from("-_"), st.integers(0, 60))


@settings(max_examples=200)
@given(
    listing=st.lists(objects, max_size=25, unique_by=lambda o: o[:4]),
    max_bytes=st.integers(1, 150),
    max_objects=st.integers(1, 6),
)
def test_every_object_is_merged_once_or_left_alone_and_no_batch_breaks_a_rule(
    listing: list[tuple[int, int, int, str, int]], max_bytes: int, max_objects: int
) -> None:
    day = [stored(key(f"{first}{mark}{first + more}", p), size) for p, first, more, mark, size in listing]
    result = plan_batches(AUDIT, PREFIX, day, max_bytes=max_bytes, max_objects=max_objects)

    merged = [source.stored.key for batch in result.batches for source in batch.sources]
    assert sorted(merged + [left.key for left in result.left_alone]) == sorted(each.key for each in day)

    present = {each.key: parse_object_name(each.key) for each in day}
    for batch in result.batches:
        target = parse_object_name(batch.key)
        sources = [source.name for source in batch.sources]
        assert all(not source.coalesced and target.covers(source) for source in sources)
        assert all(before.last_offset < after.first_offset for before, after in pairwise(sources))
        if batch.stored_as is not None:
            assert batch.key in present
            continue
        assert len(sources) > 1
        assert len(sources) <= max_objects
        assert batch.size_bytes <= max_bytes
        assert all(before.last_offset + 1 == after.first_offset for before, after in pairwise(sources))
        assert (target.first_offset, target.last_offset) == (sources[0].first_offset, sources[-1].last_offset)
        others = [name for each, name in present.items() if each not in {s.stored.key for s in batch.sources}]
        for other in others:
            assert other.kafka_partition != target.kafka_partition or (
                other.last_offset < target.first_offset or other.first_offset > target.last_offset
            )
