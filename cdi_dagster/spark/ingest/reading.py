r"""Reads one pinned object as blocks of envelope lines, in memory that depends on neither object nor line length.

Decides what a line is: `\n` ends it, and so does the end of a gzip member (K2HB's members hold whole lines, and a
coalesced object glues members, never lines). Does not check envelopes: the record engine does. Runs in Spark's Python
workers; imported by `objects`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from cdi_dagster.spark.ingest.gunzip import Gunzip

BLOCK_BYTES: Final = 256 * 1024
"""Envelope bytes in a block: some 130 of the usual 2 kB. Enough to spread a block's cost; four times as many cost the
record engine a tenth more, because what one stage leaves for the next no longer stays in the processor's cache."""

MAX_ENVELOPE_BYTES: Final = 32 * 1024 * 1024
"""Longer lines are rejected unread. Kafka messages are some MB at most; a payload takes up to twenty times its length
while it is parsed, and a worker has about 1 GB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvelopeBlock:
    r"""Consecutive envelopes of one object.

    Attributes:
        lines: the envelopes as stored, without `\n`; never blank. A trailing `\r` is kept: JSON does not mind it.
        line_numbers: of each envelope, counted from 1 over all lines of the object, blank ones included.
        first_index: how many envelopes of the object came before this block.
    """

    lines: Sequence[bytes]
    line_numbers: Sequence[int]
    first_index: int

    @property
    def size_bytes(self) -> int:
        """Bytes of all lines."""
        return sum(map(len, self.lines))


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlongEnvelope:
    """A line longer than `MAX_ENVELOPE_BYTES`: counted and digested while it passes, never held.

    Attributes:
        line_number: counted from 1 over all lines of the object.
        index: how many envelopes of the object came before it.
        size_bytes: its length.
        sha256: of its bytes, to find it again in the object.
    """

    line_number: int
    index: int
    size_bytes: int
    sha256: str


class EnvelopeReader:
    """Reads one object once: iterate `blocks` to the end, then the counts are those of the whole object.

    Attributes:
        envelopes: lines that are not blank, so far.
        blank_lines: lines of white space only, so far.
    """

    def __init__(self, stream: BinaryIO, key: str) -> None:
        self._gunzip = Gunzip(stream, key)
        self._lines = _Lines()

    @property
    def envelopes(self) -> int:
        """Envelopes read so far."""
        return self._lines.envelopes

    @property
    def blank_lines(self) -> int:
        """Blank lines read so far."""
        return self._lines.blank_lines

    @property
    def compressed_bytes(self) -> int:
        """Bytes read of the stored object so far, padding included."""
        return self._gunzip.compressed_bytes

    def blocks(self) -> Iterator[EnvelopeBlock | OverlongEnvelope]:
        """Yield every envelope of the object, in order, in blocks of about `BLOCK_BYTES`.

        Raises:
            CdiError: INPUT_INVALID where the object is not whole, sound gzip.
        """
        lines = self._lines
        for chunk in self._gunzip.chunks():
            if chunk is None:
                lines.end_line()
            else:
                lines.add(chunk)
            if lines.ready:
                yield from lines.take()
        yield from lines.take()


@dataclass
class _Lines:
    """Splits inflated bytes into lines and gathers those that are whole."""

    envelopes: int = 0
    blank_lines: int = 0
    _line_count: int = 0
    _gathered: list[EnvelopeBlock | OverlongEnvelope] = field(default_factory=list)
    _lines: list[bytes] = field(default_factory=list)
    _lines_bytes: int = 0
    _begun: list[bytes] = field(default_factory=list)
    _begun_bytes: int = 0
    _overlong: "hashlib._Hash | None" = None

    @property
    def ready(self) -> bool:
        """Whether a block's worth of lines is gathered."""
        return self._lines_bytes >= BLOCK_BYTES or bool(self._gathered)

    def add(self, chunk: bytes) -> None:
        """Split one inflated piece; what follows its last newline waits for the next."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines:
            if self._begun_bytes:
                self._begin(lines.pop(0))
                self.end_line()
            self._lines += lines
            self._lines_bytes += len(chunk) - len(rest)
        if rest:
            self._begin(rest)

    def end_line(self) -> None:
        """The line begun, if any, is whole."""
        if not self._begun_bytes:
            return
        if self._overlong is None:
            self._lines.append(b"".join(self._begun))
            self._lines_bytes += self._begun_bytes
        else:
            self._close_block()
            self._line_count += 1
            self._gathered.append(
                OverlongEnvelope(
                    line_number=self._line_count,
                    index=self.envelopes,
                    size_bytes=self._begun_bytes,
                    sha256=self._overlong.hexdigest(),
                )
            )
            self.envelopes += 1
            self._overlong = None
        self._begun, self._begun_bytes = [], 0

    def take(self) -> list[EnvelopeBlock | OverlongEnvelope]:
        """Return what is gathered, and forget it."""
        self._close_block()
        gathered, self._gathered = self._gathered, []
        return gathered

    def _begin(self, piece: bytes) -> None:
        self._begun_bytes += len(piece)
        if self._overlong is None:
            self._begun.append(piece)
            if self._begun_bytes <= MAX_ENVELOPE_BYTES:
                return
            self._overlong = hashlib.sha256()
            pieces, self._begun = self._begun, []
            for begun in pieces:
                self._overlong.update(begun)
        else:
            self._overlong.update(piece)

    def _close_block(self) -> None:
        if not self._lines:
            return
        numbers: Sequence[int] = range(self._line_count + 1, self._line_count + 1 + len(self._lines))
        self._line_count += len(self._lines)
        envelopes = [line for line in self._lines if line.strip()]
        blank = len(self._lines) - len(envelopes)
        if blank:
            numbers = [number for number, line in zip(numbers, self._lines, strict=True) if line.strip()]
        self._lines, self._lines_bytes = [], 0
        self.blank_lines += blank
        if envelopes:
            self._gathered.append(EnvelopeBlock(lines=envelopes, line_numbers=numbers, first_index=self.envelopes))
            self.envelopes += len(envelopes)
