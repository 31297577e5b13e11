"""Checks gzip as a stream: every member's checksum, the end, the lines; by the walker that the reader uses.

A line ends with a newline, or with its gzip member: that is how the reader has it. Memory is bounded, whatever the
object inflates to. No content is kept or logged. Imported by `merge` and `proof` only.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from cdi_dagster.storage.gzip_members import BadGzipError, GzipMembers

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
        on_compressed: called with the compressed bytes of members, without padding.
        on_unended: called after a member whose last line has no newline.

    Attributes:
        lines: lines so far.
        unended_lines: how many of them end with their member, without a newline.
        blank_lines: how many of them are white space only.
    """

    def __init__(
        self,
        on_member: Callable[[Member], None] | None = None,
        *,
        on_compressed: Callable[[bytes], object] | None = None,
        on_unended: Callable[[], object] = lambda: None,
    ) -> None:
        self.lines = 0
        self.unended_lines = 0
        self.blank_lines = 0
        self._on_member = on_member
        self._on_unended = on_unended
        self._members = GzipMembers(self._digested if on_member else on_compressed)
        self._digest = hashlib.sha256()
        self._first_byte = self._last_byte = b""
        self._is_blank = True

    def feed(self, data: bytes) -> None:
        """Inflate and check some more bytes.

        Raises:
            UnreadablePartError: they are not gzip, or a checksum is wrong.
        """
        try:
            for inflated in self._members.feed(data):
                if inflated is None:
                    self._end_member()
                    continue
                self._count(inflated)
                self._first_byte = self._first_byte or inflated[:1]
                self._last_byte = inflated[-1:]
        except BadGzipError as error:
            raise UnreadablePartError(f"it {error}") from None

    def _count(self, inflated: bytes) -> None:
        first, *rest = inflated.split(b"\n")
        self._is_blank = self._is_blank and not first.strip()
        if not rest:
            return
        begun = rest.pop()
        self.lines += 1 + len(rest)
        self.blank_lines += self._is_blank + sum(not line.strip() for line in rest)
        self._is_blank = not begun.strip()

    def _digested(self, compressed: bytes) -> None:
        self._digest.update(compressed)

    def _end_member(self) -> None:
        if self._last_byte not in (b"", b"\n"):
            self.lines += 1
            self.unended_lines += 1
            self.blank_lines += self._is_blank
            self._on_unended()
        if self._on_member:
            member = Member(
                sha256=self._digest.digest(),
                starts_with_newline=self._first_byte == b"\n",
                ends_with_newline=self._last_byte == b"\n",
                is_empty=not self._first_byte,
            )
            self._on_member(member)
        self._digest = hashlib.sha256()
        self._first_byte = self._last_byte = b""
        self._is_blank = True

    def finish(self) -> None:
        """Check that there were bytes and that the last member is complete.

        Raises:
            UnreadablePartError: it is empty or cut short.
        """
        try:
            self._members.finish()
        except BadGzipError as error:
            raise UnreadablePartError(f"it {error}") from None
