"""What a line is, how lines come in blocks, and that memory stays bounded."""

import gzip
import hashlib
import io
import json
import math
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.member_index import Extent
from cdi_dagster.spark.ingest import reading
from cdi_dagster.spark.ingest.reading import MISFIT, EnvelopeBlock, EnvelopeReader, OverlongEnvelope
from cdi_dagster.storage import gzip_members


def reader_of(*members: bytes) -> EnvelopeReader:
    return EnvelopeReader(io.BytesIO(b"".join(gzip.compress(member, 1) for member in members)), "key")


def test_a_part_that_is_not_what_its_index_states_is_a_misfit_of_its_object() -> None:
    first, second = gzip.compress(b"a\n\n"), gzip.compress(b"b\nc")
    before, extent = Extent(bytes=len(first), lines=2, envelopes=1), Extent(bytes=len(second), lines=2, envelopes=2)
    part = EnvelopeReader(io.BytesIO(second), "key", before=before, extent=extent)
    (block,) = part.blocks()
    assert isinstance(block, EnvelopeBlock)
    assert (block.lines, list(block.line_numbers), block.first_index) == ([b"b", b"c"], [3, 4], 1)
    assert (part.envelopes, part.blank_lines, part.compressed_bytes) == (2, 0, len(second))
    for stored, stated in (
        (second[1:], extent),
        (second[:-1], extent),
        (b"", extent),
        (second + first, extent),
        (second, replace(extent, lines=3)),
        (second, replace(extent, envelopes=1)),
        (second, replace(extent, bytes=len(second) + 1)),
    ):
        with pytest.raises(CdiError, match=f"from byte {len(first)} on") as raised:
            list(EnvelopeReader(io.BytesIO(stored), "key", before=before, extent=stated).blocks())
        assert raised.value.detail == {"key": "key", MISFIT: True}


def test_an_object_that_changes_under_a_reader_of_a_part_is_no_misfit() -> None:
    class Changed(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise CdiError(FailureClass.INPUT_CHANGED, "It is another one.")

    with pytest.raises(CdiError) as raised:
        list(EnvelopeReader(Changed(), "key", extent=Extent(bytes=9, lines=1, envelopes=1)).blocks())
    assert raised.value.failure_class is FailureClass.INPUT_CHANGED


def lines_of(reader: EnvelopeReader) -> list[tuple[int, bytes]]:
    numbered: list[tuple[int, bytes]] = []
    for block in reader.blocks():
        assert isinstance(block, EnvelopeBlock)
        assert block.first_index == len(numbered)
        numbered += zip(block.line_numbers, block.lines, strict=True)
    return numbered


def plainly(members: Sequence[bytes]) -> tuple[list[tuple[int, bytes]], int]:
    """The rules, written plainly: the reference of the property test."""
    lines: list[bytes] = []
    for member in members:
        parts = member.split(b"\n")
        lines += parts[:-1] + ([parts[-1]] if parts[-1] else [])
    numbered = list(enumerate(lines, 1))
    return [(number, line) for number, line in numbered if line.strip()], sum(not line.strip() for line in lines)


@given(
    members=st.lists(
        st.lists(st.sampled_from([b"\n", b"\r\n", b"\n\n", b"{}", b"abc", b" ", b"longer than some"]), max_size=12).map(
            b"".join
        ),
        min_size=1,
        max_size=6,
    ),
    block_bytes=st.integers(1, 60),
    inflated_bytes=st.integers(1, 60),
)
@settings(max_examples=300, deadline=None)
def test_lines_blanks_and_numbers_are_right_whatever_the_blocks(
    members: list[bytes], block_bytes: int, inflated_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK_BYTES", block_bytes)
        patch.setattr(gzip_members, "_INFLATED_BYTES", inflated_bytes)
        reader = reader_of(*members)
        found = lines_of(reader)
    expected, blank = plainly(members)
    assert (found, reader.envelopes, reader.blank_lines) == (expected, len(expected), blank)


def test_an_unterminated_line_at_the_end_of_a_member_is_not_glued_to_the_next() -> None:
    assert lines_of(reader_of(b"one\ntwo", b"three\n", b"four")) == [
        (1, b"one"),
        (2, b"two"),
        (3, b"three"),
        (4, b"four"),
    ]


def test_a_carriage_return_stays_and_a_lone_one_is_blank() -> None:
    reader = reader_of(b"{}\r\n\r\n{}\r")
    assert lines_of(reader) == [(1, b"{}\r"), (3, b"{}\r")]
    assert reader.blank_lines == 1


def test_blocks_are_filled_even_from_tiny_members() -> None:
    line = b"x" * 999
    reader = EnvelopeReader(io.BytesIO(gzip.compress(line, 1) * 5_000), "key")
    sizes = [len(block.lines) for block in reader.blocks() if isinstance(block, EnvelopeBlock)]
    assert sum(sizes) == 5_000
    assert set(sizes[:-1]) == {math.ceil(reading.BLOCK_BYTES / len(line))}
    assert max(sizes) < 1_100


def test_a_line_too_long_is_counted_and_digested_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_ENVELOPE_BYTES", 1_000)
    monkeypatch.setattr(gzip_members, "_INFLATED_BYTES", 512)  # as in life, far less than the longest line
    long = bytes(range(32, 127)) * 50
    reader = reader_of(b"\none\n" + b"y" * 1_000 + b"\n" + long + b"\nthree\n", long)
    digest = hashlib.sha256(long).hexdigest()
    assert list(reader.blocks()) == [
        EnvelopeBlock(lines=[b"one", b"y" * 1_000], line_numbers=[2, 3], first_index=0),
        OverlongEnvelope(line_number=4, index=2, size_bytes=len(long), sha256=digest),
        EnvelopeBlock(lines=[b"three"], line_numbers=range(5, 6), first_index=3),
        OverlongEnvelope(line_number=6, index=4, size_bytes=len(long), sha256=digest),
    ]
    assert (reader.envelopes, reader.blank_lines) == (5, 1)


def test_memory_depends_on_neither_the_object_nor_its_longest_line() -> None:
    stored = gzip.compress(b'{"a": "' + b"z" * 200_000_000 + b'"}\n' + b"{}\n" * 100, 1)
    tracemalloc.start()
    try:
        reader = EnvelopeReader(io.BytesIO(stored), "key")
        blocks = list(reader.blocks())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(blocks[0], OverlongEnvelope)
    assert reader.envelopes == 101
    assert peak < 2 * reading.MAX_ENVELOPE_BYTES


@pytest.mark.slow  # it is read whole
def test_an_object_of_two_gigabytes_takes_no_more_memory_than_a_small_one() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "cdi_dagster_tests.spark.huge_object", "128"], capture_output=True, text=True, check=True
    )
    found = json.loads(ended.stdout)
    assert found["inflated_bytes"] == 2**31
    assert found["compressed_bytes"] > 300_000_000
    assert found["times_as_many"] == 64
    assert found["more_memory_bytes"] < 8_000_000
