"""What an object may look like, and what is said of one that is not whole, sound gzip."""

import gzip
import io
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.spark.ingest import gunzip
from cdi_dagster.spark.ingest.gunzip import Gunzip
from cdi_dagster.storage import gzip_members

KEY = "corporate_storage/x/data.businessAudit_0_0_9.jsonl.gz"


def members_of(stored: bytes) -> list[bytes]:
    members, current = [], b""
    for chunk in Gunzip(io.BytesIO(stored), KEY).chunks():
        if chunk is None:
            members.append(current)
            current = b""
        else:
            current += chunk
    assert current == b""
    return members


def failure_of(stored: bytes) -> CdiError:
    with pytest.raises(CdiError) as raised:
        members_of(stored)
    assert raised.value.failure_class is FailureClass.INPUT_INVALID
    assert raised.value.detail["key"] == KEY
    assert KEY in raised.value.cause
    return raised.value


@given(
    members=st.lists(st.binary(max_size=300), min_size=1, max_size=8),
    padding=st.lists(st.integers(0, 600), min_size=8, max_size=8),
    read_bytes=st.integers(1, 50),
    feed_bytes=st.integers(1, 50),
    inflated_bytes=st.integers(1, 50),
)
@settings(max_examples=150, deadline=None)
def test_every_member_comes_back_whatever_the_sizes_of_the_steps(
    members: list[bytes], padding: list[int], read_bytes: int, feed_bytes: int, inflated_bytes: int
) -> None:
    stored = b"".join(gzip.compress(member) + bytes(zeros) for member, zeros in zip(members, padding, strict=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gunzip, "READ_BYTES", read_bytes)
        patch.setattr(gzip_members, "_FEED_BYTES", feed_bytes)
        patch.setattr(gzip_members, "_INFLATED_BYTES", inflated_bytes)
        assert members_of(stored) == members


def test_all_bytes_are_counted_padding_included() -> None:
    stored = gzip.compress(b"a\n") + gzip.compress(b"b\n") + bytes(70_000)
    reader = Gunzip(io.BytesIO(stored), KEY)
    assert list(reader.chunks()) == [b"a\n", None, b"b\n", None]
    assert reader.compressed_bytes == len(stored)


def test_headers_with_names_comments_and_checksums_are_read() -> None:
    body = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = body.compress(b"line\n") + body.flush()
    header = b"\x1f\x8b\x08" + bytes([0b11110]) + bytes(6) + b"\x03\x00abc" + b"name\0" + b"comment\0"
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    tail = zlib.crc32(b"line\n").to_bytes(4, "little") + (5).to_bytes(4, "little")
    assert members_of(header + deflated + tail) == [b"line\n"]


def test_a_bomb_comes_in_small_pieces() -> None:
    stored = gzip.compress(bytes(40_000_000))
    sizes = [len(chunk) for chunk in Gunzip(io.BytesIO(stored), KEY).chunks() if chunk is not None]
    assert sum(sizes) == 40_000_000
    assert max(sizes) <= 256 * 1024


@pytest.mark.parametrize("keep", [1, 5, 11, 500, -9, -8, -1])
def test_a_truncated_object_is_named_with_the_byte_where_it_ends(keep: int) -> None:
    first = gzip.compress(b"whole\n")
    stored = first + gzip.compress(random.Random(1).randbytes(1000))[:keep]
    failure = failure_of(stored)
    assert f"cut short: it ends at byte {len(stored)}" in failure.cause
    assert f"begins at byte {len(first)}" in failure.cause
    assert failure.detail["compressed_offset"] == len(stored)


@pytest.mark.parametrize("position", [-6, -2], ids=["checksum", "length"])
def test_a_wrong_checksum_or_length_is_damage(position: int) -> None:
    stored = bytearray(gzip.compress(b"line\n"))
    stored[position] ^= 1
    assert "cannot be unzipped" in failure_of(bytes(stored)).cause


def test_damage_in_a_later_member_names_that_member() -> None:
    first = gzip.compress(b"first\n")
    second = bytearray(gzip.compress(random.Random(2).randbytes(5000)))
    second[2500] ^= 0xFF
    assert f"the gzip member that begins at byte {len(first)}" in failure_of(first + bytes(second)).cause


@pytest.mark.parametrize("stored", [b'{"plain": "json"}\n', b"PK\x03\x04 a zip", b"\x00\x00not zero"])
def test_what_is_not_gzip_is_called_so(stored: bytes) -> None:
    assert "is not gzip" in failure_of(stored).cause


def test_a_gzip_magic_without_gzip_is_damage() -> None:
    assert "cannot be unzipped" in failure_of(b"\x1f\x8b is all there is of gzip here").cause


@pytest.mark.parametrize("garbage", [b"x", b"\0\0\0garbage", b"{}\n"])
def test_garbage_after_the_last_member_is_named_by_its_byte(garbage: bytes) -> None:
    whole = gzip.compress(b"line\n")
    failure = failure_of(whole + garbage)
    assert "not gzip after its last member" in failure.cause
    assert failure.detail["compressed_offset"] == len(whole) + len(garbage) - len(garbage.lstrip(b"\0"))


def test_an_empty_object_is_called_empty() -> None:
    assert "is empty" in failure_of(b"").cause


def test_an_object_of_zeros_is_not_gzip() -> None:
    assert "all zero" in failure_of(bytes(1000)).cause
