"""What a run of the coalescer reports: its progress, and a summary at its end. Values only."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from cdi_dagster.coalescer.plan import LeftAlone
from cdi_dagster.core.amounts import duration_text, size_text
from cdi_dagster.core.listing import ListingDigest, StoredObject
from cdi_dagster.core.object_names import InvalidObjectNameError, parse_object_name

_BYTES_LIKE_AN_OBJECT = 256 * 1024
"""As long as S3 takes for the first byte of an object, some 15 ms, it takes for the next of these."""
EMPTY_DAY = "there are no objects: the day is empty, or the collection or day is wrong"


@dataclass(frozen=True, kw_only=True)
class CoalesceProgress:
    """Progress of a run: raw objects and compressed bytes, done (merged or failed) of those to merge."""

    batches: int
    objects: int
    bytes: int
    batches_done: int = 0
    objects_done: int = 0
    bytes_done: int = 0

    @property
    def share_done(self) -> float:
        """How much of the work is done, 0 to 1: tiny objects cost requests, large ones bytes."""
        total = self.objects + self.bytes / _BYTES_LIKE_AN_OBJECT
        return (self.objects_done + self.bytes_done / _BYTES_LIKE_AN_OBJECT) / total if total else 1.0


def progress_text(progress: CoalesceProgress, seconds: float) -> str:
    """Return how far the run is after so many seconds, how fast, and how long the rest takes at that rate."""
    share = progress.share_done
    return ", ".join(
        [
            f"{progress.objects_done:,} of {progress.objects:,} raw objects",
            f"{size_text(progress.bytes_done)} of {size_text(progress.bytes)}",
            f"{progress.objects_done / seconds:,.0f} objects/s",
            f"{share:.0%}",
            *([f"about {duration_text(seconds / share - seconds)} left"] if share else []),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class DayFigures:
    """One storage day as listed.

    Attributes:
        objects: raw and coalesced objects.
        bytes: their compressed bytes.
        offsets: the offsets that their names state, summed.
        fingerprint: of the listing; None of what was found, and where several processes have listed a shard each.
    """

    objects: int
    bytes: int
    offsets: int
    fingerprint: str | None


@dataclass(frozen=True, kw_only=True)
class CoalesceSummary:
    """The result of one run of the coalescer.

    Attributes:
        collection_id: `db:name`.
        storage_day: the day.
        before: the day as found.
        after: the day as left.
        merged: keys of the coalesced objects that this run wrote.
        finished: keys of coalesced objects that existed already, and whose raw objects this run deleted.
        left_alone: objects that stay as they are, with the reason.
        warnings: sentences about oddities that lose no record.
        failures: sentences about what failed; empty where the run succeeded.
        took_over: the killed coalescer whose claim was taken over, if any.
        seconds: wall clock.
    """

    collection_id: str
    storage_day: date
    before: DayFigures
    after: DayFigures
    merged: tuple[str, ...]
    finished: tuple[str, ...]
    left_alone: tuple[LeftAlone, ...]
    warnings: tuple[str, ...]
    failures: tuple[str, ...]
    took_over: str | None
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether everything that could be merged was, and the COMPLETE marker was written."""
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; objects left alone for normal reasons are only counted."""
        ordinary = Counter(left.why for left in self.left_alone if left.expected)
        return {
            **asdict(self),
            "storage_day": self.storage_day.isoformat(),
            "left_alone": [asdict(left) for left in self.left_alone if not left.expected],
            "left_alone_as_usual": dict(ordinary),
            "succeeded": self.succeeded,
        }


def day_figures(listing: Iterable[StoredObject]) -> DayFigures:
    """Return the figures of a listing, as it goes by."""
    objects = size_bytes = offsets = 0
    digest = ListingDigest()
    for stored in listing:
        digest.add(stored)
        objects += 1
        size_bytes += stored.size_bytes
        offsets += _offset_count(stored.key)
    return DayFigures(objects=objects, bytes=size_bytes, offsets=offsets, fingerprint=digest.fingerprint())


def _offset_count(key: str) -> int:
    try:
        return parse_object_name(key).offset_count
    except InvalidObjectNameError:
        return 0
