"""Writes what one task makes: parts of records and parts of rejects, gzipped, prepared but not yet visible.

The driver publishes what the successful attempts of all tasks prepared; what a failed, repeated or killed attempt
prepared is discarded with the run's upload group. Runs in Spark's Python workers; imported by `task`.
"""

import base64
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

import orjson
from isal import isal_zlib

from cdi_dagster.core.ingest_report import RejectReason
from cdi_dagster.published.publish import WrittenPart
from cdi_dagster.spark.ingest.reading import OverlongEnvelope
from cdi_dagster.storage import Storage, Upload

MOST_PART_BYTES: Final = 256 * 1024 * 1024
"""Compressed; then another part begins: a gzip part cannot be divided among those who read it next."""

_COMPRESSION_LEVEL: Final = 1
"""ISA-L level 1: about a fifth larger than zlib's 6 on sample records, at a tenth of the CPU (docs/performance.md)."""

_GZIP_CONTAINER: Final = 31


class PartsWriter:
    """Writes the lines of one task into as many parts as they need; none for no lines.

    The parts are numbered `task_index`, `task_index + stride`, ...: unique over all tasks without coordination.

    Args:
        storage: where to.
        prefix: prefix of the parts, ending in `/`.
        publication_id: ends every part's name: no two publications share a name.
        group: upload group: the correlation id.
        task_index: number of this task.
        stride: how many tasks there are.
    """

    def __init__(
        self, storage: Storage, prefix: str, *, publication_id: str, group: str, task_index: int, stride: int
    ) -> None:
        self._storage = storage
        self._prefix = prefix
        self._publication_id = publication_id
        self._group = group
        self._number = task_index
        self._stride = stride
        self._part: _OpenPart | None = None
        self._written: list[WrittenPart] = []

    def write(self, text: bytes, lines: int) -> None:
        """Append whole lines, each ended by a newline."""
        if not lines:
            return
        if self._part is None:
            key = f"{self._prefix}part-{self._number:05d}-{self._publication_id}.jsonl.gz"
            self._part = _OpenPart(self._storage.upload(key, group=self._group))
            self._number += self._stride
        self._part.write(text, lines)
        if self._part.compressed_bytes >= MOST_PART_BYTES:
            self._close_part()

    def finish(self) -> tuple[WrittenPart, ...]:
        """Make every part durable and return what publishes them."""
        self._close_part()
        return tuple(self._written)

    def _close_part(self) -> None:
        if self._part is not None:
            self._written.append(self._part.prepare())
            self._part = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._part is not None:
            self._part.abort()


class _OpenPart:
    """One part being written."""

    def __init__(self, upload: Upload) -> None:
        self.compressed_bytes = 0
        self._stack = ExitStack()
        self._upload = self._stack.enter_context(upload)
        self._compressor = isal_zlib.compressobj(level=_COMPRESSION_LEVEL, wbits=_GZIP_CONTAINER)
        self._lines = 0
        self._text_bytes = 0

    def write(self, text: bytes, lines: int) -> None:
        self._store(self._compressor.compress(text))
        self._lines += lines
        self._text_bytes += len(text)

    def prepare(self) -> WrittenPart:
        with self._stack:
            self._store(self._compressor.flush())
            return WrittenPart(prepared=self._upload.prepare(), lines=self._lines, text_bytes=self._text_bytes)

    def abort(self) -> None:
        with self._stack:
            self._upload.abort()

    def _store(self, compressed: bytes) -> None:
        if compressed:
            self._upload.write(compressed)
            self.compressed_bytes += len(compressed)


def reject_line(
    *, reason: RejectReason, detail: str, key: str, line_number: int, offset: int | None, envelope: bytes
) -> bytes:
    """Return one reject as a line of JSON, the envelope as it was stored (still encrypted).

    Where the envelope is not UTF-8 it is kept as `envelope_base64` instead of `envelope`.
    """
    line = _place(reason, detail, key, line_number, offset)
    try:
        line["envelope"] = envelope.decode()
    except UnicodeDecodeError:
        line["envelope_base64"] = base64.b64encode(envelope).decode()
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def overlong_reject_line(overlong: OverlongEnvelope, *, detail: str, key: str, offset: int | None) -> bytes:
    """Return the reject of a line too long to be held: its length and digest instead of the envelope."""
    line = _place(RejectReason.ENVELOPE, detail, key, overlong.line_number, offset)
    line |= {"envelope_bytes": overlong.size_bytes, "envelope_sha256": overlong.sha256}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _place(reason: RejectReason, detail: str, key: str, line_number: int, offset: int | None) -> dict[str, Any]:
    return {"reason": str(reason), "detail": detail, "key": key, "line_number": line_number, "offset": offset}
