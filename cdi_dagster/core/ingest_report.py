"""The closing report of an ingestion: what was read, published and rejected, and whether that adds up.

Made by the Spark job, carried to the run page, the status row and the `_SUCCESS` mark. Counts and
locations only, never content.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.pinned_input import PinnedInput

_SPARSE = (
    "Where the topic is compacted or transactional, its offsets have holes: run the day with allow_sparse_offsets. "
    "Otherwise records were lost before the object was written: find out from K2HB's team, and have it sent again."
)


class RejectReason(StrEnum):
    """Reason families of rejected records (the record contract names them)."""

    ENVELOPE = "envelope"
    ENCRYPTION = "encryption"
    KEY = "key"
    CIPHERTEXT = "ciphertext"
    PAYLOAD = "payload"
    AUDIT = "audit"
    DATE = "date"
    ENCODING = "encoding"


@dataclass(frozen=True, kw_only=True)
class ObjectCounts:
    """What one pinned object gave.

    Attributes:
        key: path below the corporate root.
        read: envelopes read (lines that are not blank).
        published: records written.
        rejected: rejects written, by reason.
        blank_lines: lines without content; neither records nor rejects.
        compressed_bytes: bytes read of the object.
    """

    key: str
    read: int
    published: int
    rejected: Mapping[str, int]
    blank_lines: int
    compressed_bytes: int

    @property
    def rejected_total(self) -> int:
        """Rejects of every reason."""
        return sum(self.rejected.values())

    def __add__(self, other: "ObjectCounts") -> "ObjectCounts":
        """Return the counts of two parts of one object together."""
        return ObjectCounts(
            key=self.key,
            read=self.read + other.read,
            published=self.published + other.published,
            rejected=dict(Counter(self.rejected) + Counter(other.rejected)),
            blank_lines=self.blank_lines + other.blank_lines,
            compressed_bytes=self.compressed_bytes + other.compressed_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class RejectSample:
    """Where one reject came from: its location, never content."""

    reason: str
    detail: str
    key: str
    line_number: int


@dataclass(frozen=True, kw_only=True)
class KeyServiceCounts:
    """Requests to the key service, over all workers."""

    calls: int = 0
    cache_hits: int = 0
    retries: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """The closing report of one run of `ingest_daily`.

    Attributes:
        fingerprint: of the pinned input that was read.
        objects: counts by object, in pinned order.
        record_bytes: bytes of the records before compression, newlines included.
        published_bytes: bytes of the published parts.
        parts: number of published parts.
        fallback_records: records that took the plain algorithm instead of the fast one.
        key_service: calls and cache hits.
        reject_samples: a few locations for each reason.
        seconds: wall clock of the job, up to where it publishes.
        published_prefix: prefix below the published root that the run publishes to, or None where it publishes nothing.
        rejects_prefix: prefix of the rejects below the published root, or None where there are none.
        db_types: of a keyed collection, how many rows there are of each type.
    """

    fingerprint: str
    objects: tuple[ObjectCounts, ...]
    record_bytes: int
    published_bytes: int
    parts: int
    fallback_records: int
    key_service: KeyServiceCounts
    reject_samples: tuple[RejectSample, ...]
    seconds: float
    published_prefix: str | None
    rejects_prefix: str | None
    db_types: Mapping[str, int] | None = None
    totals: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        rejected: Counter[str] = Counter()
        for counts in self.objects:
            rejected.update(counts.rejected)
        totals = {
            "objects": len(self.objects),
            "read": sum(counts.read for counts in self.objects),
            "published": sum(counts.published for counts in self.objects),
            "rejected": sum(rejected.values()),
            "rejected_by_reason": dict(sorted(rejected.items())),
            "blank_lines": sum(counts.blank_lines for counts in self.objects),
            "input_bytes": sum(counts.compressed_bytes for counts in self.objects),
        }
        object.__setattr__(self, "totals", totals)

    @property
    def read(self) -> int:
        """Envelopes read."""
        return int(self.totals["read"])

    @property
    def published(self) -> int:
        """Records published."""
        return int(self.totals["published"])

    @property
    def rejected(self) -> int:
        """Records rejected."""
        return int(self.totals["rejected"])

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "IngestReport":
        """Read what `to_json` wrote; the totals are counted again, not trusted."""
        fields = {name: part for name, part in value.items() if name != "totals"}
        fields["objects"] = tuple(ObjectCounts(**row) for row in value["objects"])
        fields["key_service"] = KeyServiceCounts(**value["key_service"])
        fields["reject_samples"] = tuple(RejectSample(**row) for row in value["reject_samples"])
        return cls(**fields)


def reconcile(pinned: PinnedInput, objects: Iterable[ObjectCounts], *, allow_sparse_offsets: bool = False) -> None:
    """Check that exactly the pinned objects were read, whole, and that every envelope is accounted for.

    Args:
        pinned: what should have been read.
        objects: what was.
        allow_sparse_offsets: accept fewer records than an object's name states offsets (compacted or transactional
            topics have holes). More records than offsets are never accepted.

    Raises:
        CdiError: COUNTS_DO_NOT_RECONCILE, naming the first object that does not add up.
    """
    counted = {}
    for counts in objects:
        if counts.key in counted:
            raise _mismatch(counts.key, "was read twice")
        counted[counts.key] = counts
    for expected in pinned.objects:
        found = counted.pop(expected.key, None)
        if found is None:
            raise _mismatch(expected.key, "was pinned but not read")
        if found.compressed_bytes != expected.size_bytes:
            raise _mismatch(
                expected.key, f"has {expected.size_bytes} bytes pinned but {found.compressed_bytes} were read"
            )
        if found.read != found.published + found.rejected_total:
            raise _mismatch(
                expected.key,
                f"gave {found.read} envelopes but {found.published} records and {found.rejected_total} rejects",
            )
        offsets = expected.name.offset_count
        if found.read > offsets or (found.read < offsets and not allow_sparse_offsets):
            what = f"states {offsets} offsets in its name but holds {found.read} envelopes"
            raise _mismatch(expected.key, what, next_step=_SPARSE if found.read < offsets else None)
    if counted:
        raise _mismatch(next(iter(counted)), "was read but not pinned")


def _mismatch(key: str, what: str, *, next_step: str | None = None) -> CdiError:
    return CdiError(FailureClass.COUNTS_DO_NOT_RECONCILE, f"{key} {what}.", next_step=next_step, detail={"key": key})
