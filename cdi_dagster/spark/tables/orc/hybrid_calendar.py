"""Days of the proleptic Gregorian calendar as days of the hybrid one, in which ORC files count by default.

The hybrid calendar is Julian before 1582-10-15. A day keeps its name: 1066-10-14 stays 1066-10-14.
"""

from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Final

FIRST_GREGORIAN_DAY: Final = -141_427
"""1582-10-15, in days since 1970."""

_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_EPOCH_JULIAN_DAY_NUMBER: Final = 2_440_588
_MICROS_A_DAY: Final = 86_400_000_000


def hybrid_days(days: Sequence[int]) -> Sequence[int]:
    """Return days since 1970 so that readers with the hybrid calendar see the same dates."""
    if min(days) >= FIRST_GREGORIAN_DAY:
        return days
    return [day if day >= FIRST_GREGORIAN_DAY else _hybrid_day(day) for day in days]


def hybrid_micros(micros: Sequence[int]) -> Sequence[int]:
    """Return microseconds since 1970 so that readers with the hybrid calendar see the same dates and times."""
    if min(micros) >= FIRST_GREGORIAN_DAY * _MICROS_A_DAY:
        return micros
    days = [moment // _MICROS_A_DAY for moment in micros]
    moved = zip(micros, days, hybrid_days(days), strict=True)
    return [moment + (hybrid - day) * _MICROS_A_DAY for moment, day, hybrid in moved]


@lru_cache(maxsize=4096)
def _hybrid_day(day: int) -> int:
    """Return the Julian day of that name: the usual formula for the Julian day number."""
    named = date.fromordinal(day + _EPOCH_ORDINAL)
    before_march = (14 - named.month) // 12
    year, month = named.year + 4800 - before_march, named.month + 12 * before_march - 3
    number = named.day + (153 * month + 2) // 5 + 365 * year + year // 4 - 32_083
    return number - _EPOCH_JULIAN_DAY_NUMBER
