r"""Reads a pinned object, or a part of one, as blocks of envelope lines, in memory that depends on no length of theirs.

Decides what a line is: `\n` ends it, and so does the end of a gzip member (K2HB's members hold whole lines, and a
coalesced object glues members, never lines). Does not check envelopes: the record engine does. Runs in Spark's Python
workers; imported by `objects`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.member_index import NOTHING, Extent
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


MISFIT: Final = "unfit_member_index"
"""In the detail of a failure: a part of this object is not what the index of its members states. Read whole, the object
may be sound."""


class EnvelopeReader:
    """Reads one object, or a part, once: iterate `blocks` to the end, then the counts are those of all of it.

    Args:
        stream: of the object, or of a part of it.
        key: of the object.
        before: of a part, how much of the object comes before.
        extent: of a part, how much it must hold.
    """

    def __init__(self, stream: BinaryIO, key: str, *, before: Extent = NOTHING, extent: Extent | None = None) -> None:
        self._key = key
        self._gunzip = Gunzip(stream, key)
        self._lines = _Lines(envelopes=before.envelopes, _line_count=before.lines)
        self._before = before
        self._extent = extent

    @property
    def envelopes(self) -> int:
        """Envelopes read so far."""
        return self._lines.envelopes - self._before.envelopes

    @property
    def blank_lines(self) -> int:
        """Blank lines read so far."""
        return self._lines.blank_lines

    @property
    def compressed_bytes(self) -> int:
        """Bytes read of the stored object so far, padding included."""
        return self._gunzip.compressed_bytes

    def blocks(self) -> Iterator[EnvelopeBlock | OverlongEnvelope]:
        """Yield every envelope, in order, in blocks of about `BLOCK_BYTES`.

        Raises:
            CdiError: INPUT_INVALID where the object is not whole, sound gzip; with `MISFIT` in its detail where a part
                is not, or does not hold what it must.
        """
        if self._extent is None:
            yield from self._blocks()
            return
        try:
            yield from self._blocks()
        except CdiError as error:
            if error.failure_class is not FailureClass.INPUT_INVALID:
                raise
            raise self._misfit(error.cause) from error
        found = Extent(bytes=self.compressed_bytes, lines=self.envelopes + self.blank_lines, envelopes=self.envelopes)
        if found != self._extent:
            raise self._misfit(f"It holds {found}.")

    def _misfit(self, found: str) -> CdiError:
        return CdiError(
            FailureClass.INPUT_INVALID,
            f"{self._key} from byte {self._before.bytes} on is not {self._extent}, as the index of its gzip members "
            f"states: {found}",
            detail={"key": self._key, MISFIT: True},
        )

    def _blocks(self) -> Iterator[EnvelopeBlock | OverlongEnvelope]:
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
