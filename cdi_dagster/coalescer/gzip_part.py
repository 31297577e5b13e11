"""Checks gzip as a stream: every member's checksum, the end, the lines.

Memory is bounded, whatever the object inflates to. No content is kept or logged. Imported by `merge` and `proof` only.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from isal import isal_zlib

_GZIP = 31
_DAMAGED = cast(type[Exception], isal_zlib.IsalError)  # its stub calls it an instance
_FEED_BYTES = 32 * 1024
"""Compressed bytes per call of the inflater: at the end of a member it copies what it did not use."""
_INFLATED_BYTES = 1024 * 1024
"""Most that one step may inflate to: a bomb of zeros costs time, not memory."""

NEWLINE_MEMBER = bytes.fromhex("1f8b08000000000002ffe302009306d73201000000")
"""A gzip member that holds one newline (RFC 1952; no time, no name)."""


class UnreadablePartError(Exception):
    """The object is not complete gzip; the message says where."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One gzip member.

    Attributes:
        sha256: checksum of its compressed bytes.
        starts_with_newline: whether its content begins with a newline.
        ends_with_newline: whether its content ends with a newline.
        is_empty: whether it has no content.
    """

    sha256: bytes
    starts_with_newline: bool
    ends_with_newline: bool
    is_empty: bool


class GzipPart:
    """Checks the bytes of one object: feed them all, then call `finish`.

    Args:
        on_member: called with every member, in order.

    Attributes:
        lines: lines so far; an unterminated last one counts once `finish` was called.
        ends_with_newline: whether the last byte of content is a newline (True where there is no content).
    """

    def __init__(self, on_member: Callable[[Member], None] | None = None) -> None:
        self.lines = 0
        self.ends_with_newline = True
        self._on_member = on_member
        self._compressed_bytes = 0
        self._inflater: Any = None
        self._digest = hashlib.sha256()
        self._first_byte = self._last_byte = b""

    def feed(self, data: bytes) -> None:
        """Inflate and check some more bytes.

        Raises:
            UnreadablePartError: they are not gzip, or a checksum is wrong.
        """
        for start in range(0, len(data), _FEED_BYTES):
            pending = data[start : start + _FEED_BYTES]
            self._compressed_bytes += len(pending)
            while pending:
                pending = self._step(pending)

    def _step(self, data: bytes) -> bytes:
        """Inflate a bounded amount; return the compressed bytes that remain."""
        inflater = self._inflater = self._inflater or isal_zlib.decompressobj(wbits=_GZIP)
        try:
            inflated = inflater.decompress(data, _INFLATED_BYTES)
        except _DAMAGED as error:
            raise UnreadablePartError(f"it is not gzip, or damaged, before byte {self._compressed_bytes}") from error
        if inflated:
            self.lines += inflated.count(b"\n")
            self._first_byte = self._first_byte or inflated[:1]
            self._last_byte = inflated[-1:]
            self.ends_with_newline = self._last_byte == b"\n"
        left = bytes(inflater.unused_data if inflater.eof else inflater.unconsumed_tail)
        if self._on_member:
            self._digest.update(data[: len(data) - len(left)])
        if inflater.eof:
            self._end_member()
        return left

    def _end_member(self) -> None:
        if self._on_member:
            member = Member(
                sha256=self._digest.digest(),
                starts_with_newline=self._first_byte == b"\n",
                ends_with_newline=self._last_byte == b"\n",
                is_empty=not self._first_byte,
            )
            self._on_member(member)
        self._inflater = None
        self._digest = hashlib.sha256()
        self._first_byte = self._last_byte = b""

    def finish(self) -> None:
        """Check that there were bytes and that the last member is complete.

        Raises:
            UnreadablePartError: it is empty or cut short.
        """
        if not self._compressed_bytes:
            raise UnreadablePartError("it is empty")
        if self._inflater is not None:
            raise UnreadablePartError(f"its gzip is cut short after {self._compressed_bytes} bytes")
        if not self.ends_with_newline:
            self.lines += 1
