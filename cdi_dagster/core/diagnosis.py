"""Why a day is slow: its volume and its objects against the usual. Pure; answers in words.

The question people used to go and find out by hand when the coalescer was late: is there more data than usual, or
the usual data in far more objects, because K2HB is not batching?
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.object_names import InvalidObjectNameError, parse_object_name

MINIMUM_HISTORY_DAYS = 3
"""Fewer days than this are no usual."""
UNUSUAL_RATIO = 1.5
"""A figure this many times its median (or less than its inverse) is worth a word."""


@dataclass(frozen=True, kw_only=True)
class DayVolume:
    """What lay in corporate storage for one collection and storage day.

    Attributes:
        objects: how many.
        bytes: compressed.
        offsets: by the objects' names; raw objects that a coalesced one covers count once more while both are there.
    """

    objects: int
    bytes: int
    offsets: int

    @property
    def mean_object_bytes(self) -> float:
        """Mean object size; 0 for a day without objects."""
        return self.bytes / self.objects if self.objects else 0.0


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A day against the median of the days before it.

    Attributes:
        day: the day's figures.
        usual: the medians, or None where there is too little history.
        verdict: a sentence for the person who waits.
    """

    day: DayVolume
    usual: DayVolume | None
    verdict: str


def day_volume(listing: Iterable[StoredObject]) -> DayVolume:
    """Count a listing; an object whose name states no offsets counts as none."""
    objects = total_bytes = offsets = 0
    for stored in listing:
        objects += 1
        total_bytes += stored.size_bytes
        try:
            offsets += parse_object_name(stored.key).offset_count
        except InvalidObjectNameError:
            continue
    return DayVolume(objects=objects, bytes=total_bytes, offsets=offsets)


def diagnose(day: DayVolume, history: Sequence[DayVolume]) -> Diagnosis:
    """Compare a day with the days before it that held anything."""
    past = [volume for volume in history if volume.objects]
    if len(past) < MINIMUM_HISTORY_DAYS:
        return Diagnosis(day=day, usual=None, verdict=f"{_figures(day)}; only {len(past)} earlier days to compare with")
    usual = DayVolume(
        objects=round(median(volume.objects for volume in past)),
        bytes=round(median(volume.bytes for volume in past)),
        offsets=round(median(volume.offsets for volume in past)),
    )
    return Diagnosis(day=day, usual=usual, verdict=f"{_figures(day)}: {_verdict(day, usual)}")


def _verdict(day: DayVolume, usual: DayVolume) -> str:
    if not day.objects:
        return "no objects, where there usually are some"
    volume = day.bytes / max(usual.bytes, 1)
    objects = day.objects / max(usual.objects, 1)
    smaller = usual.mean_object_bytes / max(day.mean_object_bytes, 1)
    volume_words = "usual volume" if _is_usual(volume) else f"{_ratio(volume)} the usual volume"
    if objects >= UNUSUAL_RATIO and smaller >= UNUSUAL_RATIO:
        return f"{volume_words} in {_ratio(objects)} the usual number of objects: K2HB is not batching"
    if _is_usual(objects) or not _is_usual(volume):
        return volume_words
    return f"{volume_words} in {_ratio(objects)} the usual number of objects"


def _is_usual(ratio: float) -> bool:
    return 1 / UNUSUAL_RATIO < ratio < UNUSUAL_RATIO


def _ratio(value: float) -> str:
    return f"{value:.0f}x" if value >= 10 else f"{value:.1f}x" if value >= 0.1 else f"{value:.2f}x"


def _figures(day: DayVolume) -> str:
    return (
        f"{day.objects:,} objects, {_size(day.bytes)}, {day.offsets:,} records by offsets, "
        f"mean object {_size(day.mean_object_bytes)}"
    )


def _size(number_of_bytes: float) -> str:
    for unit in ("B", "KB", "MB"):
        if number_of_bytes < 1000:
            return f"{number_of_bytes:.0f} {unit}" if unit == "B" else f"{number_of_bytes:.1f} {unit}"
        number_of_bytes /= 1000
    return f"{number_of_bytes:.1f} GB"
