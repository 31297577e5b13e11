"""Typed values of the managed table: from a JSON value of a record to what its column holds, or null.

Pure, standard library only: the grammar of each type, and which values no ORC reader keeps. A conversion takes a
Python value as JSON parsers return it and returns the typed value, None (null) or `UNPARSABLE` (null, and counted).
Typed values are plain numbers, so that a day of them is cheap to write: a timestamp is microseconds since 1970 UTC, a
date is days since 1970, a decimal is its unscaled integer. All of the proleptic Gregorian calendar.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final

UNPARSABLE: Final = object()
"""The value is not of its column's type: null, and counted."""

Conversion = Callable[[Any], Any]

MICROS_A_SECOND: Final = 1_000_000
MICROS_A_DAY: Final = 86_400 * MICROS_A_SECOND
FIRST_GREGORIAN_DAY: Final = -141_427
"""1582-10-15. ORC's readers take earlier days for Julian ones."""

_LACKING_DAYS: Final = range(FIRST_GREGORIAN_DAY - 10, FIRST_GREGORIAN_DAY)
"""1582-10-05 to 1582-10-14: the hybrid calendar of ORC's readers does not have them."""

_LAST_FRACTIONS: Final = range(-MICROS_A_SECOND + 1_000, 0)
"""The last second before 1970 but for its first millisecond: ORC's Java reader adds a second (ORC-763)."""

_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - only subtracted from another without a zone
_TIMESTAMP: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d:\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):?(\d\d))?| (\d\d:\d\d:\d\d)(?:\.(\d+))?)",
    re.ASCII,
)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DECIMAL_TYPE: Final = re.compile(r"decimal\((\d+),(\d+)\)")
_LONGEST_EXPONENT: Final = 6
_MOST_DAYS_KNOWN: Final = 20_000

_BIGINTS: Final = range(-(2**63), 2**63)
_INTS: Final = range(-(2**31), 2**31)

_micros_by_day: dict[str, int] = {}
_micros_by_clock: dict[str, int] = {}
_micros_by_millis: Final = {f"{millis:03d}": millis * 1_000 for millis in range(1_000)}


def conversion(kind: str) -> Conversion | None:
    """Return the conversion of a column type; None for `string`, where the record's text counts.

    The conversion of a decimal takes a JSON string or the record's text of another value (`JsonText`).
    """
    if kind == "string":
        return None
    if match := _DECIMAL_TYPE.fullmatch(kind):
        return partial(_decimal, digits=int(match[1]), scale=int(match[2]))
    return _CONVERSIONS[kind]


class JsonText(str):
    """The text in the record of a JSON value that is not a string."""

    __slots__ = ()


def _timestamp(value: Any) -> Any:
    text = _moment_text(value)
    if not text:
        return None
    micros = _micros(text) if text is not UNPARSABLE else None
    if micros is None:
        return UNPARSABLE
    if micros < 0 and (micros in _LAST_FRACTIONS or micros // MICROS_A_DAY in _LACKING_DAYS):
        return UNPARSABLE
    return micros


def _date(value: Any) -> Any:
    text = _moment_text(value)
    if not text:
        return None
    if text is UNPARSABLE:
        return UNPARSABLE
    # A day alone has ten characters, a moment more.
    micros = _micros_of_day(text) if len(text) == len("YYYY-MM-DD") else _micros(text)
    if micros is None:
        return UNPARSABLE
    days = micros // MICROS_A_DAY
    return UNPARSABLE if days in _LACKING_DAYS else days


def _moment_text(value: Any) -> Any:
    """Return the text of a moment: a string, or that of the platform's form `{"d_date": "…"}`."""
    if type(value) is dict:
        value = value.get("d_date") if len(value) == 1 else UNPARSABLE
        return value if type(value) is str else UNPARSABLE
    return value if value is None or type(value) is str else UNPARSABLE


def _micros(text: str) -> int | None:
    """Return a timestamp's microseconds since 1970 UTC, or None where the text is none of the years 1 to 9999."""
    try:
        # The platform's own form, by three look-ups: parts come into the dictionaries once they have been checked.
        if text[10] == "T" and text[19] == "." and text[23:] == "Z":
            return _micros_by_day[text[:10]] + _micros_by_clock[text[11:19]] + _micros_by_millis[text[20:23]]
    except (IndexError, KeyError):
        pass
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    day, clock, fraction, sign, hours, minutes, spaced_clock, spaced_fraction = match.groups()
    day_micros, clock_micros = _micros_of_day(day), _micros_of_clock(clock or spaced_clock)
    if day_micros is None or clock_micros is None:
        return None
    micros = day_micros + clock_micros + int(((fraction or spaced_fraction or "") + "000000")[:6])
    if sign:
        if hours > "23" or minutes > "59":
            return None
        offset = (int(hours) * 60 + int(minutes)) * 60 * MICROS_A_SECOND
        micros += offset if sign == "-" else -offset
        if not 1 <= micros // MICROS_A_DAY + _EPOCH_ORDINAL <= date.max.toordinal():
            return None
    return micros


def _micros_of_day(text: str) -> int | None:
    micros = _micros_by_day.get(text)
    if micros is None and _DATE.fullmatch(text):
        try:
            micros = (date.fromisoformat(text).toordinal() - _EPOCH_ORDINAL) * MICROS_A_DAY
        except ValueError:
            return None
        if len(_micros_by_day) >= _MOST_DAYS_KNOWN:
            _micros_by_day.clear()
        _micros_by_day[text] = micros
    return micros


def _micros_of_clock(text: str) -> int | None:
    micros = _micros_by_clock.get(text)
    if micros is None and text[:2] <= "23" and text[3:5] <= "59" and text[6:] <= "59":
        seconds = (int(text[:2]) * 60 + int(text[3:5])) * 60 + int(text[6:])
        micros = _micros_by_clock[text] = seconds * MICROS_A_SECOND
    return micros


def _integer(value: Any, *, valid: range) -> Any:
    if type(value) is str:
        if not value:
            return None
        if not _INTEGER.fullmatch(value):
            return UNPARSABLE
        digits = value.lstrip("+-0")
        if len(digits) > len(str(valid.stop)):  # int() refuses texts of thousands of digits
            return UNPARSABLE
        value = int(value[0] + (digits or "0")) if value[0] in "+-" else int(digits or "0")
    return value if type(value) is int and value in valid else UNPARSABLE


def _double(value: Any) -> Any:
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return UNPARSABLE
    if type(value) is str:
        if not value:
            return None
        if _NUMBER.fullmatch(value) and math.isfinite(number := float(value)):
            return number
    return UNPARSABLE


def _boolean(value: Any) -> Any:
    if type(value) is bool:
        return value
    if type(value) is str:
        return {"true": True, "false": False, "": None}.get(value, UNPARSABLE)
    return UNPARSABLE


def _decimal(value: Any, *, digits: int, scale: int) -> Any:
    """Return the unscaled integer of exactly this value: nothing is rounded."""
    if not value:
        return None
    if not _NUMBER.fullmatch(value):
        return UNPARSABLE
    if len(value.lower().partition("e")[2]) > _LONGEST_EXPONENT or len(value) > 10_000:
        return UNPARSABLE  # too large to compute, and far out of range but for zeros
    sign, number, exponent = Decimal(value).as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - it is a number
    shift = exponent + scale
    text = "".join(map(str, number)).lstrip("0")
    if not text:
        return 0
    if len(text) + shift > digits or (shift < 0 and text[shift:].strip("0")):
        return UNPARSABLE
    kept = text + "0" * shift if shift >= 0 else text[:shift]
    return int(f"{'-' if sign else ''}{kept or 0}")


_CONVERSIONS: Final[dict[str, Conversion]] = {
    "timestamp": _timestamp,
    "date": _date,
    "bigint": partial(_integer, valid=_BIGINTS),
    "int": partial(_integer, valid=_INTS),
    "double": _double,
    "boolean": _boolean,
}


def moment_of(micros: int) -> datetime:
    """Return a typed timestamp as a datetime."""
    return (_EPOCH + timedelta(microseconds=micros)).replace(tzinfo=UTC)


def day_of(days: int) -> date:
    """Return a typed date as a date."""
    return date.fromordinal(days + _EPOCH_ORDINAL)
