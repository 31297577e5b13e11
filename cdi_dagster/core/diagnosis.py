"""Why a day is slow: its volume and number of objects compared with usual. Pure; the result is a sentence.

It answers what people used to work out by hand when the coalescer was late: is there more data than usual, or the
usual data in far more objects, because K2HB is not batching?
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from cdi_dagster.core.amounts import size_text
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.object_names import InvalidObjectNameError, parse_object_name

MINIMUM_HISTORY_DAYS = 3
"""With fewer earlier days nothing is compared."""
UNUSUAL_RATIO = 1.5
"""A figure this many times its median (or less than its inverse) is mentioned."""


@dataclass(frozen=True, kw_only=True)
class DayVolume:
    """What corporate storage held for one collection and storage day.

    Attributes:
        objects: how many.
        bytes: compressed.
        offsets: by the objects' names; raw objects that a coalesced one covers count once more while both are there.
        coalesced_objects: how many of the objects the coalescer has written.
        is_cut_off: whether counting stopped before the end of the listing: then all figures are lower bounds.
    """

    objects: int
    bytes: int
    offsets: int
    coalesced_objects: int = 0
    is_cut_off: bool = False

    @property
    def mean_object_bytes(self) -> float:
        """Mean object size; 0 for a day without objects."""
        return self.bytes / self.objects if self.objects else 0.0

    @property
    def is_raw(self) -> bool:
        """Whether nothing of it was coalesced yet: only then are its objects those that K2HB wrote."""
        return self.objects > 0 and not self.coalesced_objects


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A day compared with the median of the days before it.

    Attributes:
        day: the day's figures.
        usual: the medians, or None where there is too little history.
        objects_compare: whether the earlier days are raw, or coalesced, like this one; otherwise the number and size
            of their objects cannot be compared with this day's.
        summary: a sentence for the person who waits.
    """

    day: DayVolume
    usual: DayVolume | None
    summary: str
    objects_compare: bool = True


def day_volume(listing: Iterable[StoredObject], *, most_objects: int | None = None) -> DayVolume:
    """Count a listing; an object whose name states no offsets has none, and a hidden file (`.DS_Store`) is no object.

    Args:
        listing: of one collection and storage day.
        most_objects: stop counting after this many; None counts all of them.
    """
    objects = total_bytes = offsets = coalesced = 0
    for stored in listing:
        if stored.key.rpartition("/")[2].startswith("."):
            continue
        if objects == most_objects:
            return DayVolume(
                objects=objects, bytes=total_bytes, offsets=offsets, coalesced_objects=coalesced, is_cut_off=True
            )
        objects += 1
        total_bytes += stored.size_bytes
        try:
            name = parse_object_name(stored.key)
        except InvalidObjectNameError:
            continue
        offsets += name.offset_count
        coalesced += name.coalesced
    return DayVolume(objects=objects, bytes=total_bytes, offsets=offsets, coalesced_objects=coalesced)


def diagnose(day: DayVolume, history: Sequence[DayVolume]) -> Diagnosis:
    """Compare a day with the days before it that held anything."""
    past = [volume for volume in history if volume.objects]
    if len(past) < MINIMUM_HISTORY_DAYS:
        earlier = {0: "no earlier day", 1: "only 1 earlier day"}.get(len(past), f"only {len(past)} earlier days")
        return Diagnosis(day=day, usual=None, summary=f"{_figures(day)}; {earlier} to compare with")
    alike = [volume for volume in past if volume.is_raw == day.is_raw]
    objects_compare = not day.objects or len(alike) >= MINIMUM_HISTORY_DAYS
    usual = DayVolume(
        objects=round(median(volume.objects for volume in (alike if objects_compare and alike else past))),
        bytes=round(median(volume.bytes for volume in past)),
        offsets=round(median(volume.offsets for volume in past)),
    )
    comparison = _compare(day, usual) if objects_compare else _compare_volume(day, usual)
    return Diagnosis(day=day, usual=usual, objects_compare=objects_compare, summary=f"{_figures(day)}: {comparison}")


def _compare_volume(day: DayVolume, usual: DayVolume) -> str:
    volume = _ratio_words(day.bytes / max(usual.bytes, 1), at_least=day.is_cut_off)
    so = "not coalesced yet, the earlier days are" if day.is_raw else "coalesced, the earlier days are not"
    return f"{volume} volume; this day is {so}, so the numbers of objects do not compare"


def _compare(day: DayVolume, usual: DayVolume) -> str:
    if not day.objects:
        return "no objects, where there usually are some"
    if day.is_cut_off:
        return f"more than {_ratio(day.objects / max(usual.objects, 1))} the usual number of objects, not all counted"
    volume = day.bytes / max(usual.bytes, 1)
    objects = day.objects / max(usual.objects, 1)
    smaller = usual.mean_object_bytes / max(day.mean_object_bytes, 1)
    volume_words = f"{_ratio_words(volume)} volume"
    if day.is_raw and objects >= UNUSUAL_RATIO and smaller >= UNUSUAL_RATIO:
        return f"{volume_words} in {_ratio(objects)} the usual number of objects: K2HB is not batching"
    if _is_usual(objects) or not _is_usual(volume):
        return volume_words
    return f"{volume_words} in {_ratio(objects)} the usual number of objects"


def _ratio_words(ratio: float, *, at_least: bool = False) -> str:
    if at_least:
        return f"at least {_ratio(ratio)} the usual"
    return "usual" if _is_usual(ratio) else f"{_ratio(ratio)} the usual"


def _is_usual(ratio: float) -> bool:
    return 1 / UNUSUAL_RATIO < ratio < UNUSUAL_RATIO


def _ratio(value: float) -> str:
    return f"{value:.0f}x" if value >= 10 else f"{value:.1f}x" if value >= 0.1 else f"{value:.2f}x"


def _figures(day: DayVolume) -> str:
    at_least = "more than " if day.is_cut_off else ""
    return (
        f"{at_least}{day.objects:,} objects, {size_text(day.bytes)}, {day.offsets:,} records by offsets, "
        f"mean object {size_text(day.mean_object_bytes)}"
    )
