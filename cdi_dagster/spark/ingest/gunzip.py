"""Inflates one stored object, read in blocks: gzip of any number of members (`storage.gzip_members`).

Where a member ends, an unterminated line ends too (`reading`). Imported by `reading` only.
"""

from collections.abc import Iterator
from typing import BinaryIO, Final

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.storage.gzip_members import BadGzipError, GzipMembers

READ_BYTES: Final = 256 * 1024
"""Compressed bytes requested from storage at once; 64 kB to 512 kB measure alike."""


class Gunzip:
    """Inflates one object; iterate `chunks` once, then read `compressed_bytes`."""

    def __init__(self, stream: BinaryIO, key: str) -> None:
        self._members = GzipMembers()
        self._stream = stream
        self._key = key

    @property
    def compressed_bytes(self) -> int:
        """Bytes read of the object so far; all of it once `chunks` is exhausted."""
        return self._members.compressed_bytes

    def chunks(self) -> Iterator[bytes | None]:
        """Yield inflated bytes in pieces of at most 256 kB, and None where a member ends.

        Zero padding between and after members is skipped. Every byte of the object is read and its checksums are
        verified before this ends.

        Raises:
            CdiError: INPUT_INVALID, naming the object and the compressed byte: empty, not gzip, damaged, cut short,
                or followed by something else.
        """
        try:
            while block := self._stream.read(READ_BYTES):
                yield from self._members.feed(block)
            self._members.finish()
        except BadGzipError as error:
            raise CdiError(
                FailureClass.INPUT_INVALID,
                f"{self._key} {error}. Nothing was published.",
                detail={"key": self._key, "compressed_offset": error.offset},
            ) from None
