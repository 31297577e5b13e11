"""Writes what one task makes: parts of records and parts of rejects, gzipped, prepared but not yet visible.

The driver publishes what the successful attempts of all tasks prepared; what a failed, repeated or killed attempt
prepared is discarded with the run's upload group. Runs in Spark's Python workers; imported by `task`.
"""

import base64
from typing import Any, Final

import orjson
from isal import isal_zlib

from cdi_dagster.core.ingest_report import RejectReason
from cdi_dagster.published.publish import WrittenPart
from cdi_dagster.spark.ingest.reading import OverlongEnvelope
from cdi_dagster.spark.numbered_parts import NumberedParts, OpenFile
from cdi_dagster.storage import Storage, Upload

MOST_PART_BYTES: Final = 256 * 1024 * 1024
"""Compressed; then another part begins: a gzip part cannot be divided among those who read it next."""

_COMPRESSION_LEVEL: Final = 1
"""ISA-L level 1: about a fifth larger than zlib's 6 on sample records, at a tenth of the CPU (docs/performance.md)."""

_GZIP_CONTAINER: Final = 31


class PartsWriter(NumberedParts["_OpenPart", WrittenPart]):
    """Writes the lines of one task into parts: `NumberedParts` whose names end with the publication's id."""

    def __init__(
        self, storage: Storage, prefix: str, *, publication_id: str, group: str, task_index: int, stride: int
    ) -> None:
        ending = f"{publication_id}.jsonl.gz"
        super().__init__(storage, prefix, ending=ending, group=group, task_index=task_index, stride=stride)

    def write(self, text: bytes, lines: int) -> None:
        """Append whole lines, each ended by a newline."""
        if not lines:
            return
        part = self._open_file()
        part.write(text, lines)
        if part.compressed_bytes >= MOST_PART_BYTES:
            self._close_file()

    def _new_file(self, upload: Upload) -> "_OpenPart":
        return _OpenPart(upload)


class _OpenPart(OpenFile[WrittenPart]):
    """One part being written."""

    def __init__(self, upload: Upload) -> None:
        super().__init__(upload)
        self.compressed_bytes = 0
        self._compressor = isal_zlib.compressobj(level=_COMPRESSION_LEVEL, wbits=_GZIP_CONTAINER)
        self._lines = 0
        self._text_bytes = 0

    def write(self, text: bytes, lines: int) -> None:
        self._store(self._compressor.compress(text))
        self._lines += lines
        self._text_bytes += len(text)

    def _prepared(self) -> WrittenPart:
        self._store(self._compressor.flush())
        return WrittenPart(prepared=self._upload.prepare(), lines=self._lines, text_bytes=self._text_bytes)

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
