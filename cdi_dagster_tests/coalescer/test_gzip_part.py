"""Gzip is checked as a stream, whole and in any pieces."""

import gzip
import io
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_dagster.coalescer.gzip_part import NEWLINE_MEMBER, GzipPart, Member, UnreadablePartError
from cdi_dagster.spark.ingest.gunzip import Gunzip
from cdi_dagster.spark.ingest.reading import EnvelopeBlock, EnvelopeReader


def fed(data: bytes, step: int = 1 << 18) -> GzipPart:
    part = GzipPart()
    for start in range(0, len(data), step):
        part.feed(data[start : start + step])
    part.finish()
    return part


def test_the_newline_member_is_gzip_of_one_newline() -> None:
    assert gzip.decompress(NEWLINE_MEMBER) == b"\n"


@pytest.mark.parametrize("step", [1, 7, 1 << 18])
@pytest.mark.parametrize(
    ("content", "lines", "unended"), [(b"", 0, 0), (b"a\n", 1, 0), (b"a\nb", 2, 1), (b"\n\n", 2, 0)]
)
def test_lines_are_counted_whatever_the_pieces(content: bytes, lines: int, unended: int, step: int) -> None:
    part = fed(gzip.compress(content), step)
    assert (part.lines, part.unended_lines) == (lines, unended)


@given(members=st.lists(st.text(alphabet="a \n\r").map(str.encode), min_size=1, max_size=4), step=st.integers(1, 40))
def test_lines_and_blank_lines_are_counted_as_the_reader_counts_them(members: list[bytes], step: int) -> None:
    data = b"".join(map(gzip.compress, members))
    reader = EnvelopeReader(io.BytesIO(data), "key")
    list(reader.blocks())
    part = fed(data, step)
    assert (part.lines - part.blank_lines, part.blank_lines) == (reader.envelopes, reader.blank_lines)


def test_a_line_ends_with_its_member_as_the_reader_has_it() -> None:
    data = gzip.compress(b"a\nb") + gzip.compress(b"c\n")
    reader = EnvelopeReader(io.BytesIO(data), "key")
    read = [line for block in reader.blocks() if isinstance(block, EnvelopeBlock) for line in block.lines]
    assert (fed(data).lines, read) == (3, [b"a", b"b", b"c"])


def test_every_cut_is_noticed() -> None:
    data = gzip.compress(b"some text\n" * 20)
    for end in range(len(data)):
        with pytest.raises(UnreadablePartError):
            fed(data[:end])
        if end:
            with pytest.raises(UnreadablePartError):
                fed(data + data[:end])


def test_damage_never_passes_as_other_content() -> None:
    content = bytes(random.Random(1).choices(b"abc\n", k=3000))
    data = gzip.compress(content)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        try:
            fed(bytes(damaged))
        except UnreadablePartError:
            continue
        assert gzip.decompress(bytes(damaged)) == content  # a bit that means nothing: a time, padding


@pytest.mark.parametrize("rest", [b"x" * 20, b"\0" * 600 + b"x"])
def test_what_is_no_gzip_after_the_last_member_is_refused(rest: bytes) -> None:
    with pytest.raises(UnreadablePartError, match="not gzip after its last member"):
        fed(gzip.compress(b"a\n") + rest)


@pytest.mark.parametrize("step", [1, 7, 1 << 18])
def test_zero_padding_is_taken_as_the_reader_takes_it_and_left_out_of_what_is_merged(step: int) -> None:
    # Some readers (java.util.zip) take zero padding for the end of everything, and would lose what is merged after it.
    first, second = gzip.compress(b"a\n"), gzip.compress(b"b\n")
    data = first + bytes(600) + second + bytes(70_000)
    kept: list[bytes] = []
    part = GzipPart(on_compressed=kept.append)
    for start in range(0, len(data), step):
        part.feed(data[start : start + step])
    part.finish()
    assert (part.lines, b"".join(kept)) == (2, first + second)
    assert list(Gunzip(io.BytesIO(data), "key").chunks()) == [b"a\n", None, b"b\n", None]


def test_members_are_distinguished() -> None:
    members: list[Member] = []
    part = GzipPart(members.append)
    first, empty, last = gzip.compress(b"a\nb", mtime=0), gzip.compress(b"", mtime=0), gzip.compress(b"\nc\n", mtime=0)
    for byte in first + empty + last:
        part.feed(bytes([byte]))
    part.finish()
    alone: list[Member] = []
    for data in (first, empty, last):
        each = GzipPart(alone.append)
        each.feed(data)
    assert members == alone
    assert [m.ends_with_newline for m in members] == [False, False, True]
    assert [m.starts_with_newline for m in members] == [False, False, True]
    assert [m.is_empty for m in members] == [False, True, False]


def test_two_hundred_megabytes_of_zeros_is_checked_in_a_few_megabytes() -> None:
    data = gzip.compress(b"\0" * 50_000_000) * 4
    tracemalloc.start()
    fed(data)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()
