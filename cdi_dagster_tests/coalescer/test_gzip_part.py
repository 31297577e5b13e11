"""Gzip is checked as a stream, whole and in any pieces."""

import gzip
import random
import tracemalloc

import pytest

from cdi_dagster.coalescer.gzip_part import NEWLINE_MEMBER, GzipPart, Member, UnreadablePartError


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
    ("content", "lines", "ended"), [(b"", 0, True), (b"a\n", 1, True), (b"a\nb", 2, False), (b"\n\n", 2, True)]
)
def test_lines_are_counted_whatever_the_pieces(content: bytes, lines: int, ended: bool, step: int) -> None:
    part = fed(gzip.compress(content), step)
    assert (part.lines, part.ends_with_newline) == (lines, ended)


def test_a_line_that_goes_on_in_the_next_member_is_one_line() -> None:
    assert fed(gzip.compress(b"a\nb") + gzip.compress(b"c\n")).lines == 2


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


@pytest.mark.parametrize("rest", [b"\0", b"\0" * 600, b"x" * 20])
def test_anything_after_the_last_member_is_refused(rest: bytes) -> None:
    # Some readers (java.util.zip) take zero padding for the end of everything, and would lose what is merged after it.
    with pytest.raises(UnreadablePartError):
        fed(gzip.compress(b"a\n") + rest)


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
