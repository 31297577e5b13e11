"""Whether two folders of objects hold the same lines, in whatever order and objects: streamed, in bounded memory.

First each side's lines are added up as hashes: the same sum is the same multiset. Where they differ, both sides are
read again, into files by hash on disk, which are then compared one by one. Hashes have a key that is made for one
comparison, so neither disk nor result holds anything of a line's content.
"""

import heapq
import secrets
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import is_data_key
from cdi_dagster.storage import Storage
from cdi_dagster.storage.gzip_members import BadGzipError, GzipMembers

_BLOCK_BYTES = 256 * 1024
_GZIP = b"\x1f\x8b"
_PARTITIONS = 256
"""By the first byte of a hash; a day of a billion lines takes some 110 MB of memory for one of them."""
_RECORD = struct.Struct("<16sBIQ")  # hash, side, object, line
_MODULUS = 1 << 256


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """Where a line is: object (its number in the listing) and line, from 1."""

    object_number: int
    line: int


@dataclass(frozen=True, kw_only=True)
class Side:
    """The objects of one side, in the order of their keys; what begins with `_` or `.` is no data."""

    storage: Storage
    keys: tuple[str, ...]

    @classmethod
    def of(cls, storage: Storage) -> "Side":
        """List a storage."""
        listed = (stored.key for stored in storage.list(""))
        return cls(storage=storage, keys=tuple(filter(is_data_key, listed)))

    def described(self, place: Place) -> dict[str, str | int]:
        """Return a place as JSON values."""
        return {"object": self.storage.uri(self.keys[place.object_number]), "line": place.line}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How two sides differ; each pair is of the first and the second side.

    Attributes:
        lines: how many there are.
        surplus: how many of them the other side lacks, counted as a multiset.
        places: where the first of those are.
    """

    lines: tuple[int, int]
    surplus: tuple[int, int]
    places: tuple[tuple[Place, ...], tuple[Place, ...]]

    @property
    def is_same(self) -> bool:
        """Whether both have the same lines, each as often."""
        return self.surplus == (0, 0)


def compare(sides: tuple[Side, Side], *, most_places: int, progress: Callable[[str], None]) -> Comparison:
    """Compare the lines of two sides; a line ends with LF, also one that the end of its object ends.

    Args:
        sides: what is compared.
        most_places: of the first differences of each side.
        progress: gets how far it is.

    Raises:
        CdiError: INPUT_INVALID, an object that is not whole.
        StorageError: one that cannot be read.
    """
    key = secrets.token_bytes(32)
    sums = [_sum(side, key, progress) for side in sides]
    lines = (sums[0][0], sums[1][0])
    if sums[0] == sums[1]:
        return Comparison(lines=lines, surplus=(0, 0), places=((), ()))
    with tempfile.TemporaryDirectory(prefix="cdi-compare-") as folder:
        files = [Path(folder) / f"{number:02x}" for number in range(_PARTITIONS)]
        _write_partitions(sides, key, files, progress)
        surplus, places = [0, 0], ([], [])  # type: tuple[list[int], tuple[list[Place], list[Place]]]
        for file in files:
            for number, found in enumerate(_surplus(file)):
                surplus[number] += len(found)
                places[number][:] = heapq.nsmallest(most_places, [*places[number], *found])
    return Comparison(lines=lines, surplus=(surplus[0], surplus[1]), places=(tuple(places[0]), tuple(places[1])))


def _sum(side: Side, key: bytes, progress: Callable[[str], None]) -> tuple[int, int]:
    """Return how many lines there are, and the sum of their hashes."""
    count = total = 0
    for object_key in side.keys:
        progress(side.storage.uri(object_key))
        for line in _lines(side.storage, object_key):
            count += 1
            total += int.from_bytes(blake2b(line, digest_size=32, key=key).digest(), "little")
        total %= _MODULUS
    return count, total


def _write_partitions(
    sides: Sequence[Side], key: bytes, files: Sequence[Path], progress: Callable[[str], None]
) -> None:
    with ExitStack() as stack:
        partitions = [stack.enter_context(file.open("wb")) for file in files]
        for number, side in enumerate(sides):
            for object_number, object_key in enumerate(side.keys):
                progress(f"the differences of {side.storage.uri(object_key)}")
                for line_number, line in enumerate(_lines(side.storage, object_key), start=1):
                    digest = blake2b(line, digest_size=16, key=key).digest()
                    partitions[digest[0]].write(_RECORD.pack(digest, number, object_number, line_number))


def _surplus(file: Path) -> tuple[list[Place], list[Place]]:
    """Return the lines that the other side lacks; of a line that is there too often, its last places."""
    records = list(_RECORD.iter_unpack(file.read_bytes()))
    balance: Counter[bytes] = Counter()
    for digest, side, _, _ in records:
        balance[digest] += -1 if side else 1
    surplus: tuple[list[Place], list[Place]] = ([], [])
    for digest, side, object_number, line in reversed(records):  # they were written in the order of their places
        sign = -1 if side else 1
        if balance[digest] * sign > 0:
            balance[digest] -= sign
            surplus[side].append(Place(object_number=object_number, line=line))
    return surplus


def _lines(storage: Storage, key: str) -> Iterator[bytes]:
    rest = b""
    for chunk in _chunks(storage, key):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _chunks(storage: Storage, key: str) -> Iterator[bytes]:
    """Yield the bytes of an object, inflated where it is gzip, whatever its name."""
    with storage.open(key) as stream:
        block = stream.read(_BLOCK_BYTES)
        if not block.startswith(_GZIP):
            while block:
                yield block
                block = stream.read(_BLOCK_BYTES)
            return
        members = GzipMembers()
        try:
            while block:
                yield from (chunk for chunk in members.feed(block) if chunk)
                block = stream.read(_BLOCK_BYTES)
            members.finish()
        except BadGzipError as error:
            raise CdiError(FailureClass.INPUT_INVALID, f"{storage.uri(key)} {error}.") from None
