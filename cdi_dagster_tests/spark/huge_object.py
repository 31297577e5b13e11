"""Reads an object of 2 GB in one gzip member and prints how much memory that took; run as a process of its own.

The object is never anywhere whole: its deflate blocks are one block again and again.
"""

import json
import random
import resource
import sys
import zlib
from typing import BinaryIO, cast

from isal import isal_zlib

from cdi_dagster.spark.ingest.reading import EnvelopeBlock, EnvelopeReader

TEXT_BYTES = 16 * 1024 * 1024
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_END = b"\x03\x00"


def text() -> bytes:
    """Lines of 2 kB, half of them random, half alike."""
    noise = random.Random(1)  # noqa: S311
    lines = [noise.randbytes(256).hex().encode() * 2 + b"envelope" * 128 + b"\n" for _ in range(1_000)]
    whole = b"".join(lines)
    return (whole * (TEXT_BYTES // len(whole) + 1))[: TEXT_BYTES - 1] + b"\n"


class Repeated:
    """A gzip object of one member, the same text so many times."""

    def __init__(self, lines: bytes, times: int) -> None:
        compressor = isal_zlib.compressobj(1, wbits=-15)
        self._block = compressor.compress(lines) + compressor.flush(zlib.Z_FULL_FLUSH)
        checksum = 0
        for _ in range(times):
            checksum = isal_zlib.crc32(lines, checksum)
        self._left = times
        self._end = _END + checksum.to_bytes(4, "little") + (len(lines) * times % 2**32).to_bytes(4, "little")
        self._ready = _HEADER
        self.size_bytes = len(self._block) * times + len(_HEADER) + len(self._end)

    def read(self, size: int) -> bytes:
        while len(self._ready) < size and self._left:
            self._left -= 1
            self._ready += self._block if self._left else self._block + self._end
        piece, self._ready = self._ready[:size], self._ready[size:]
        return piece


def envelopes_in(lines: bytes, times: int) -> tuple[int, int]:
    """Read an object to its end; return its envelopes and its compressed bytes."""
    stream = Repeated(lines, times)
    reader = EnvelopeReader(cast(BinaryIO, stream), "huge")
    seen = sum(len(block.lines) for block in reader.blocks() if isinstance(block, EnvelopeBlock))
    assert seen == reader.envelopes
    assert reader.compressed_bytes == stream.size_bytes
    return seen, reader.compressed_bytes


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    lines = text()
    few, _ = envelopes_in(lines, 2)
    before = peak_bytes()
    many, compressed_bytes = envelopes_in(lines, int(sys.argv[1]))
    print(
        json.dumps(
            {
                "times_as_many": many / few,
                "compressed_bytes": compressed_bytes,
                "inflated_bytes": len(lines) * int(sys.argv[1]),
                "more_memory_bytes": peak_bytes() - before,
            }
        )
    )
