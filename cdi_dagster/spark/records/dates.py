"""Dates of the record contract: which strings are dates, and how they are written.

Defined by today's output: Python's `strptime` decides what parses, so `2020-5-1T1:2:3.4Z` is a date where
one is expected, digits of other scripts count, and a leap second is an error. The year is written without padding.
"""

import re
from datetime import UTC, datetime

EPOCH = "1980-01-01T00:00:00.000Z"
"""Last modified date of a record without one."""

_FORMAT = "%Y-%m-%dT%H:%M:%S.%f%z"
# \d is any decimal digit and $ also stands before a last newline: both on purpose: such strings count as dates
# (and the newline then rejects the record).
_SHAPE = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}(?:Z|\+\d{4})$")


def is_date_shaped(text: str) -> bool:
    """Return whether a string anywhere in a record counts as a date."""
    return _SHAPE.match(text) is not None


def to_utc_text(date: object) -> str:
    """Return a date in UTC, milliseconds truncated, ending in Z.

    Raises:
        ValueError: it is not a date, does not exist in the calendar, or leaves years 1 to 9999 in UTC.
    """
    try:
        moment = datetime.strptime(date, _FORMAT).astimezone(UTC)  # type: ignore[arg-type]
    except (ValueError, OverflowError, TypeError):
        raise ValueError("not a date") from None
    return f"{moment.year}-{moment:%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
