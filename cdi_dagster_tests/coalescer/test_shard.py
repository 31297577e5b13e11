"""Which shard an object is of: each of exactly one, however the day is shared."""

import pytest

from cdi_dagster.coalescer.shard import MOST_SHARDS, WHOLE_DAY, Shard
from cdi_dagster_tests.coalescer.days import PREFIX, key

KEYS = [
    *(key(offsets, partition) for partition in range(40) for offsets in ("0-4", "0_9", "10_19")),
    f"{key('0_9', 7)}.2",
    f"{PREFIX}notes.txt",
    f"{PREFIX}data.businessAudit_x_1-2.jsonl.gz",
]


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_every_object_is_of_exactly_one_shard(count: int) -> None:
    shards = [Shard(index=index, count=count) for index in range(count)]
    assert all(sum(shard.holds(each) for shard in shards) == 1 for each in KEYS)


def test_a_kafka_partition_is_one_shards_whatever_the_form_of_the_name() -> None:
    names = [key("0-4", 7), key("0_9", 7), f"{key('0_9', 7)}.2"]
    assert {Shard(index=3, count=4).holds(each) for each in names} == {True}


@pytest.mark.parametrize("shard", [WHOLE_DAY, Shard(index=1, count=3)])
def test_a_shard_is_split_into_shards_that_together_are_it(shard: Shard) -> None:
    parts = shard.split(4)
    assert {part.count for part in parts} == {shard.count * 4}
    assert all(sum(part.holds(each) for part in parts) == shard.holds(each) for each in KEYS if "notes" not in each)


def test_it_is_written_with_its_index_or_without_where_that_is_known() -> None:
    assert Shard.from_text("3/16", default_index=None) == Shard(index=3, count=16)
    assert Shard.from_text("/16", default_index="5") == Shard(index=5, count=16)
    assert Shard.from_text("3/16", default_index="5") == Shard(index=3, count=16)


@pytest.mark.parametrize("text", ["3", "3/", "/4", "4/4", "-1/4", "a/b", f"0/{MOST_SHARDS + 1}", "0/0"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="shard"):
        Shard.from_text(text, default_index=None)
