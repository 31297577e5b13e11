"""Names of raw and coalesced objects, read and written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_dagster.core.object_names import InvalidObjectNameError, ObjectName, parse_object_name

TOPICS = st.from_regex(r"[a-z][A-Za-z0-9._-]{0,30}", fullmatch=True)


@st.composite
def object_names(draw: st.DrawFn) -> ObjectName:
    first = draw(st.integers(0, 10**15))
    coalesced = draw(st.booleans())
    return ObjectName(
        topic=draw(TOPICS),
        kafka_partition=draw(st.integers(0, 200)),
        first_offset=first,
        last_offset=first + draw(st.integers(0, 10**6)),
        coalesced=coalesced,
        copy=draw(st.integers(1, 12)),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "data.businessAudit_4_0-99.jsonl.gz",
            ObjectName(topic="data.businessAudit", kafka_partition=4, first_offset=0, last_offset=99, coalesced=False),
        ),
        (
            "corporate_storage/ucfs_audit/2023/03/05/data/businessAudit/data.businessAudit_4_0_99.jsonl.gz.2",
            ObjectName(
                topic="data.businessAudit", kafka_partition=4, first_offset=0, last_offset=99, coalesced=True, copy=2
            ),
        ),
        (
            "db.accepted-data.a_b_1_2_7_7.jsonl.gz",
            ObjectName(
                topic="db.accepted-data.a_b_1", kafka_partition=2, first_offset=7, last_offset=7, coalesced=True
            ),
        ),
    ],
)
def test_known_names_are_read(text: str, expected: ObjectName) -> None:
    assert parse_object_name(text) == expected


@given(object_names())
def test_every_name_reads_back_as_it_was_written(name: ObjectName) -> None:
    assert parse_object_name(f"some/prefix/{name}") == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "_SUCCESS",
        "data.businessAudit.jsonl.gz",
        "data.businessAudit_4_0-99.jsonl",
        "data.businessAudit_4_0-99.json.gz",
        "data.businessAudit_4_0-99.jsonl.gz.tmp",
        "data.businessAudit_4_-1-99.jsonl.gz",
        "data.businessAudit_4_9-1.jsonl.gz",
        "_4_0-99.jsonl.gz",
        "data.businessAudit_4_٠-99.jsonl.gz",
    ],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidObjectNameError):
        parse_object_name(text)


@given(object_names(), st.integers(0, 50), st.integers(0, 50))
def test_an_object_covers_what_lies_within_its_offsets(name: ObjectName, from_start: int, from_end: int) -> None:
    first, last = name.first_offset + from_start, name.last_offset - from_end
    if first > last:
        return
    inner = ObjectName(
        topic=name.topic,
        kafka_partition=name.kafka_partition,
        first_offset=first,
        last_offset=last,
        coalesced=False,
    )
    assert name.covers(inner)
    assert inner.covers(name) == (from_start == from_end == 0)
    assert inner.offset_count == name.offset_count - from_start - from_end
