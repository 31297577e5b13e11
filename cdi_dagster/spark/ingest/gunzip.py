"""Inflates one stored object: gzip of any number of members, in bounded memory, naming the byte where it is bad.

Knows gzip and nothing of lines or envelopes (`reading` does). The standard library's reader hides where a member
ends, and there an unterminated line ends too; so members are walked by hand, with ISA-L. Imported by `reading` only.
"""

from collections.abc import Iterator
from typing import BinaryIO, Final, cast

from isal import igzip_lib, isal_zlib

from cdi_dagster.core.failures import CdiError, FailureClass

READ_BYTES: Final = 256 * 1024
"""Compressed bytes requested from storage at once; 64 kB to 512 kB measure alike."""

_FEED_BYTES: Final = 32 * 1024
"""Compressed bytes given to the inflater at once: what it copies back at the end of a member stays small, which
matters for coalesced objects of thousands of small members."""

_INFLATED_BYTES: Final = 256 * 1024
"""Most that one step may inflate to: a bomb of zeros costs time, never memory."""

_DAMAGED = cast(type[Exception], igzip_lib.IsalError)  # its stub declares it an instance
_GZIP_CONTAINER: Final = 31
_FIRST_MAGIC_BYTE: Final = 0x1F


class Gunzip:
    """Inflates one object; iterate `chunks` once, then read `compressed_bytes`.

    Attributes:
        compressed_bytes: bytes read of the object so far; all of it once `chunks` is exhausted.
    """

    def __init__(self, stream: BinaryIO, key: str) -> None:
        self.compressed_bytes = 0
        self._stream = stream
        self._key = key
        self._members = 0

    def chunks(self) -> Iterator[bytes | None]:
        """Yield inflated bytes in pieces of at most 256 kB, and None where a member ends.

        Zero padding between and after members is skipped. Every byte of the object is read and its checksums are
        verified before this ends.

        Raises:
            CdiError: INPUT_INVALID, naming the object and the compressed byte: empty, not gzip, damaged, cut short,
                or followed by something else.
        """
        inflater = None
        member_start = 0
        while block := self._stream.read(READ_BYTES):
            block_start = self.compressed_bytes
            self.compressed_bytes += len(block)
            position = 0
            while position < len(block):
                if inflater is None:
                    position = _after_padding(block, position)
                    if position == len(block):
                        break
                    member_start = block_start + position
                    self._require_magic(block[position], member_start)
                    inflater = isal_zlib.decompressobj(wbits=_GZIP_CONTAINER)
                fed = block[position : position + _FEED_BYTES]
                try:
                    yield from _inflate(inflater, fed)
                except _DAMAGED as error:
                    raise self._damaged(error, member_start, block_start + position) from None
                position += len(fed) - len(inflater.unused_data)
                if inflater.eof:
                    inflater = None
                    self._members += 1
                    yield None
        self._require_whole(inflater is None, member_start)

    def _require_magic(self, byte: int, offset: int) -> None:
        if byte == _FIRST_MAGIC_BYTE:
            return
        if self._members:
            raise self._invalid(f"holds something that is not gzip after its last member, from byte {offset}", offset)
        raise self._invalid(f"is not gzip: its first bytes, from byte {offset}, are no gzip header", offset)

    def _damaged(self, error: Exception, member_start: int, offset: int) -> CdiError:
        return self._invalid(
            f"cannot be unzipped: {str(error).lower()} within {_FEED_BYTES} bytes after byte {offset}, "
            f"in the gzip member that begins at byte {member_start}",
            offset,
        )

    def _require_whole(self, between_members: bool, member_start: int) -> None:
        end = self.compressed_bytes
        if not between_members:
            raise self._invalid(
                f"is cut short: it ends at byte {end}, within the gzip member that begins at byte {member_start}", end
            )
        if end == 0:
            raise self._invalid("is empty, not even a gzip member", 0)
        if self._members == 0:
            raise self._invalid(f"is not gzip: its {end} bytes are all zero", 0)

    def _invalid(self, what: str, offset: int) -> CdiError:
        return CdiError(
            FailureClass.INPUT_INVALID,
            f"{self._key} {what}. Nothing was published.",
            detail={"key": self._key, "compressed_offset": offset},
        )


def _inflate(inflater: "isal_zlib.Decompress", fed: bytes) -> Iterator[bytes]:
    """Yield all that `fed` inflates to, up to the end of the member."""
    while True:
        inflated = inflater.decompress(fed, _INFLATED_BYTES)
        if inflated:
            yield inflated
        fed = inflater.unconsumed_tail
        if inflater.eof or (not fed and len(inflated) < _INFLATED_BYTES):
            return


def _after_padding(block: bytes, position: int) -> int:
    """Return the position of the first byte at or after `position` that is not zero, or the block's length."""
    if block[position]:
        return position
    return len(block) - len(block[position:].lstrip(b"\0"))
