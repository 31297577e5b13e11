"""Compares two outputs as multisets of lines, whatever their order and their division into files."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from isal import igzip

_DIGEST_BYTES = 16
_MODULUS = 1 << (8 * _DIGEST_BYTES)


@dataclass(frozen=True, kw_only=True)
class LineDigest:
    """A fingerprint of a multiset of lines.

    Attributes:
        lines: how many there are.
        text_bytes: their bytes, newlines not counted.
        digest_sum: the sum of their hashes, which does not depend on their order.
    """

    lines: int
    text_bytes: int
    digest_sum: int


def digest_lines(gzip_files: Iterable[Path]) -> LineDigest:
    """Read every line of some gzip files, in memory that does not grow with their size."""
    lines = text_bytes = digest_sum = 0
    for path in gzip_files:
        with igzip.open(path, "rb") as file:
            for line in file:
                text = line.rstrip(b"\n")
                lines += 1
                text_bytes += len(text)
                digest_sum += int.from_bytes(hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest(), "big")
    return LineDigest(lines=lines, text_bytes=text_bytes, digest_sum=digest_sum % _MODULUS)
