"""Storage days and export days: the only module that adds or subtracts a day.

A *storage day* is the UTC day under whose prefix K2HB wrote; it is the partition key. The *export day* is the day
after: the day the ingestion runs, and the date in every output path, Hive partition (`date_str`) and status row.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

ONE_DAY = timedelta(days=1)
_YEARS = range(1970, 3000)
"""Whatever is counted from a day of these is a day too: look-backs, neighbour days, export days."""


def export_day_of(storage_day: date) -> date:
    """Return the export day of a storage day (the day after)."""
    return storage_day + ONE_DAY


def storage_day_of(export_day: date) -> date:
    """Return the storage day that is ingested on an export day (the day before)."""
    return export_day - ONE_DAY


def parse_day(text: str) -> date:
    """Read a day written as YYYY-MM-DD, the form of a partition key.

    Raises:
        ValueError: the text is not a calendar day in exactly that form, or no day on which anything was written; the
            message shows the form, or the years.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise ValueError(f"{text!r} is not a day: write it as YYYY-MM-DD, for example 2023-03-26")
    if day.year not in _YEARS:
        raise ValueError(f"{text} is no day of ours: write one of the years {_YEARS[0]} to {_YEARS[-1]}")
    return day


def storage_days_text(days: Sequence[date]) -> str:
    """Name storage days, in order: `storage day 2023-03-26`, `3 storage days, 2023-03-24 to 2023-03-26`."""
    return f"storage day {days[0]}" if len(days) == 1 else f"{len(days)} storage days, {days[0]} to {days[-1]}"


def day_ends_at(storage_day: date) -> datetime:
    """Return the moment (aware, UTC) from which K2HB writes nothing more to a storage day."""
    return datetime.combine(export_day_of(storage_day), time(0), tzinfo=UTC)


def due_at(storage_day: date, due_time: time = time(9, 30)) -> datetime:
    """Return the moment (aware, UTC) from which a storage day is due for ingestion: `due_time` on its export day."""
    return datetime.combine(export_day_of(storage_day), due_time, tzinfo=UTC)


def latest_due_storage_day(now: datetime, due_time: time = time(9, 30)) -> date:
    """Return the youngest storage day that is due at `now`.

    Raises:
        ValueError: `now` is naive; a wall clock without a zone is one hour wrong half the year.
    """
    if now.tzinfo is None:
        raise ValueError("now must be an aware datetime")
    now_utc = now.astimezone(UTC)
    yesterday = now_utc.date() - ONE_DAY
    return yesterday if now_utc.time() >= due_time else yesterday - ONE_DAY


def days_before(day: date, count: int) -> date:
    """Return the day so many days earlier."""
    return day - count * ONE_DAY


def storage_days_between(first: date, last: date) -> list[date]:
    """Return every storage day from `first` to `last`, both included; empty where `last` is before `first`."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
