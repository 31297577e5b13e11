"""Walks the gzip members of one stored object, in bounded memory, naming the byte where it is bad.

The one walker of reader and coalescer, so that both take and refuse the same objects: any number of members, zero
padding between and after them, nothing else. Knows nothing of lines. The standard library's reader hides where a member
ends, so members are walked by hand, with ISA-L.
"""

from collections.abc import Callable, Iterator
from typing import Final, cast

from isal import igzip_lib, isal_zlib

_FEED_BYTES: Final = 32 * 1024
"""Compressed bytes given to the inflater at once: what it copies back at the end of a member stays small, which
matters for coalesced objects of thousands of small members."""

_INFLATED_BYTES: Final = 256 * 1024
"""Most that one step may inflate to: a bomb of zeros costs time, never memory."""

_DAMAGED = cast(type[Exception], igzip_lib.IsalError)  # its stub declares it an instance
_GZIP_CONTAINER: Final = 31
_FIRST_MAGIC_BYTE: Final = 0x1F


class BadGzipError(Exception):
    """The object is not complete, sound gzip; the message continues a sentence that begins with its name.

    Attributes:
        offset: the compressed byte.
    """

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(what)
        self.offset = offset


class GzipMembers:
    """Walks one object: feed it all, then call `finish`.

    Args:
        on_compressed: called with the compressed bytes of members, without padding, in order: all of a member's before
            its end is yielded.

    Attributes:
        compressed_bytes: bytes fed, padding included.
    """

    def __init__(self, on_compressed: Callable[[bytes], object] | None = None) -> None:
        self.compressed_bytes = 0
        self._on_compressed = on_compressed
        self._inflater: isal_zlib.Decompress | None = None
        self._member_start = 0
        self._members = 0

    def feed(self, block: bytes) -> Iterator[bytes | None]:
        """Yield what some more bytes inflate to in pieces of at most 256 kB, and None where a member ends.

        Raises:
            BadGzipError: not gzip, damaged, or followed by something else.
        """
        block_start = self.compressed_bytes
        self.compressed_bytes += len(block)
        position = 0
        inflater = self._inflater
        while position < len(block):
            if inflater is None:
                position = _after_padding(block, position)
                if position == len(block):
                    break
                self._member_start = block_start + position
                self._require_magic(block[position])
                inflater = self._inflater = isal_zlib.decompressobj(wbits=_GZIP_CONTAINER)
            fed = block[position : position + _FEED_BYTES]
            try:
                yield from _inflate(inflater, fed)
            except _DAMAGED as error:
                raise self._damaged(error, block_start + position) from None
            used = len(fed) - len(inflater.unused_data)
            if self._on_compressed:
                self._on_compressed(fed[:used])
            position += used
            if inflater.eof:
                inflater = self._inflater = None
                self._members += 1
                yield None

    def finish(self) -> None:
        """Check that there was a member, and that the last one is complete.

        Raises:
            BadGzipError: empty, all zero, or cut short.
        """
        end = self.compressed_bytes
        if self._inflater is not None:
            what = f"is cut short: it ends at byte {end}, within the gzip member that begins at byte"
            raise BadGzipError(f"{what} {self._member_start}", end)
        if end == 0:
            raise BadGzipError("is empty, not even a gzip member", 0)
        if self._members == 0:
            raise BadGzipError(f"is not gzip: its {end} bytes are all zero", 0)

    def _require_magic(self, byte: int) -> None:
        offset = self._member_start
        if byte == _FIRST_MAGIC_BYTE:
            return
        if self._members:
            raise BadGzipError(f"holds something that is not gzip after its last member, from byte {offset}", offset)
        raise BadGzipError(f"is not gzip: its first bytes, from byte {offset}, are no gzip header", offset)

    def _damaged(self, error: Exception, offset: int) -> BadGzipError:
        return BadGzipError(
            f"is damaged and cannot be unzipped: {str(error).lower()} within {_FEED_BYTES} bytes after byte {offset}, "
            f"in the gzip member that begins at byte {self._member_start}",
            offset,
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
