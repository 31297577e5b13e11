"""Carries the envelopes of a task's objects through the record engine, writes what is rejected, and counts.

Blocks are begun some ahead of the one that is finished, over the objects' ends too, so that a slow key service costs no
time of its own. Runs in Spark's Python workers; imported by `task`.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from cdi_dagster.core.ingest_report import ObjectCounts, RejectReason, RejectSample
from cdi_dagster.core.pinned_input import PinnedObject
from cdi_dagster.spark.ingest.planning import Piece
from cdi_dagster.spark.ingest.progress import ProgressSender
from cdi_dagster.spark.ingest.reading import MAX_ENVELOPE_BYTES, EnvelopeBlock, EnvelopeReader, OverlongEnvelope
from cdi_dagster.spark.ingest.writing import PartsWriter, overlong_reject_line, reject_line
from cdi_dagster.spark.records.engine import BegunBlock, BlockResult, RecordEngine

SAMPLES_PER_REASON: Final = 5
"""Rejects listed per reason in the report; the rejects' own files have them all."""

_BLOCKS_AHEAD: Final = 64
"""Most blocks begun while the keys of the first are on their way: where objects hold a few envelopes each."""

_BYTES_AHEAD: Final = 4 * 1024 * 1024
"""Most bytes of envelopes begun so, but for one block: work enough for 40 ms of waiting, and little memory."""


@dataclass
class _Tally:
    """What has become of one object, or of a part of it, so far."""

    pinned: PinnedObject
    read: int = 0
    published: int = 0
    rejected: "Counter[str]" = field(default_factory=Counter)
    blank_lines: int = 0
    compressed_bytes: int = 0

    def counts(self) -> ObjectCounts:
        return ObjectCounts(
            key=self.pinned.key,
            read=self.read,
            published=self.published,
            rejected=dict(self.rejected),
            blank_lines=self.blank_lines,
            compressed_bytes=self.compressed_bytes,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestedBlock:
    """What became of some consecutive envelopes of one object.

    Attributes:
        pinned: the object.
        first_index: how many envelopes of the object came before.
        result: their records; the rejects are written already.
    """

    pinned: PinnedObject
    first_index: int
    result: BlockResult


class ObjectsIngestion:
    """Ingests objects, one after the other.

    Args:
        engine: makes the records.
        rejects: takes the rejects.
        progress: sends how far it is.
        dense_offsets: whether every offset of an object's name is one envelope, so that a reject's offset is known.

    Attributes:
        samples: where a few rejects of each reason are.
        fallback_records: records that took the plain algorithm.
    """

    def __init__(
        self,
        engine: RecordEngine,
        *,
        rejects: PartsWriter,
        progress: ProgressSender,
        dense_offsets: bool,
    ) -> None:
        self.samples: list[RejectSample] = []
        self.fallback_records = 0
        self._engine = engine
        self._rejects = rejects
        self._progress = progress
        self._dense_offsets = dense_offsets
        self._begun: deque[tuple[_Tally, EnvelopeBlock, BegunBlock]] = deque()
        self._begun_bytes = 0
        self._tallies: list[_Tally] = []
        self._sampled: Counter[str] = Counter()

    @property
    def counts(self) -> tuple[ObjectCounts, ...]:
        """Counts of each object, or part of one, once all are ingested."""
        return tuple(tally.counts() for tally in self._tallies)

    def ingest(self, pieces: Iterable[tuple[Piece, BinaryIO]]) -> Iterator[IngestedBlock]:
        """Ingest every piece, each open at its first byte; yield block by block what the caller is to write."""
        objects_done = bytes_done = 0
        self._progress.done(objects=0, compressed_bytes=0)
        for piece, stream in pieces:
            tally = _Tally(piece.pinned)
            reader = EnvelopeReader(stream, piece.pinned.key, before=piece.before, extent=piece.extent)
            for block in reader.blocks():
                yield from self._take(tally, block)
                self._progress.done(objects=objects_done, compressed_bytes=bytes_done + reader.compressed_bytes)
            tally.read, tally.blank_lines = reader.envelopes, reader.blank_lines
            tally.compressed_bytes = reader.compressed_bytes
            objects_done += piece.is_last
            bytes_done += reader.compressed_bytes
            self._tallies.append(tally)
        yield from self._finish_begun()
        self._progress.done(objects=objects_done, compressed_bytes=bytes_done, last=True)

    def _take(self, tally: _Tally, block: EnvelopeBlock | OverlongEnvelope) -> Iterator[IngestedBlock]:
        if isinstance(block, OverlongEnvelope):
            yield from self._finish_begun()  # rejects stay in order
            self._reject_overlong(tally, block)
            return
        self._begun.append((tally, block, self._engine.begin(block.lines)))
        self._begun_bytes += block.size_bytes
        yield from self._finish_begun(most_blocks=_BLOCKS_AHEAD, most_bytes=_BYTES_AHEAD)

    def _finish_begun(self, *, most_blocks: int = 0, most_bytes: int = 0) -> Iterator[IngestedBlock]:
        """Finish the blocks whose keys have arrived, in order, and more until only that many are left."""
        while self._begun and (
            len(self._begun) > most_blocks or self._begun_bytes > most_bytes or self._begun[0][2].is_ready
        ):
            self._engine.wait([begun for _, _, begun in self._begun])
            tally, block, begun = self._begun.popleft()
            self._begun_bytes -= block.size_bytes
            result = self._finish(tally, block, begun)
            yield IngestedBlock(pinned=tally.pinned, first_index=block.first_index, result=result)

    def _finish(self, tally: _Tally, block: EnvelopeBlock, begun: BegunBlock) -> BlockResult:
        result = self._engine.finish(begun)
        tally.published += result.published
        self.fallback_records += result.fallbacks
        for reject in result.rejects:
            line_number = block.line_numbers[reject.index]
            line = reject_line(
                reason=reject.reason,
                detail=reject.detail,
                key=tally.pinned.key,
                line_number=line_number,
                offset=self._offset(tally.pinned, block.first_index + reject.index),
                envelope=block.lines[reject.index],
            )
            self._rejects.write(line, 1)
            self._count_reject(tally, reject.reason, reject.detail, line_number)
        return result

    def _reject_overlong(self, tally: _Tally, overlong: OverlongEnvelope) -> None:
        detail = f"the line is {overlong.size_bytes} bytes long; {MAX_ENVELOPE_BYTES} is the most an envelope may be"
        offset = self._offset(tally.pinned, overlong.index)
        self._rejects.write(overlong_reject_line(overlong, detail=detail, key=tally.pinned.key, offset=offset), 1)
        self._count_reject(tally, RejectReason.ENVELOPE, detail, overlong.line_number)

    def _offset(self, pinned: PinnedObject, index: int) -> int | None:
        return pinned.name.first_offset + index if self._dense_offsets else None

    def _count_reject(self, tally: _Tally, reason: RejectReason, detail: str, line_number: int) -> None:
        tally.rejected[reason.value] += 1
        self._sampled[reason.value] += 1
        if self._sampled[reason.value] <= SAMPLES_PER_REASON:
            self.samples.append(
                RejectSample(reason=reason.value, detail=detail, key=tally.pinned.key, line_number=line_number)
            )
