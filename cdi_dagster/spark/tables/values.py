"""Typed values of the managed table: from a JSON value of a record to what its column holds, or null.

Pure, standard library only: the grammar of each type, and which values no ORC reader keeps. A conversion takes a
Python value as JSON parsers return it and returns the typed value, None (null) or `UNPARSABLE` (null, and counted).
Typed values are plain numbers, so that a day of them is cheap to write: a timestamp is microseconds since 1970 UTC, a
date is days since 1970, a decimal is its unscaled integer. All of the proleptic Gregorian calendar.
"""

import math
import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any, Final

from cdi_dagster.spark.tables.orc.hybrid_calendar import FIRST_GREGORIAN_DAY

UNPARSABLE: Final = object()
"""The value is not of its column's type: null, and counted."""

Conversion = Callable[[Any], Any]

MICROS_A_SECOND: Final = 1_000_000
MICROS_A_DAY: Final = 86_400 * MICROS_A_SECOND

_LACKING_DAYS: Final = range(FIRST_GREGORIAN_DAY - 10, FIRST_GREGORIAN_DAY)
"""1582-10-05 to 1582-10-14: the hybrid calendar of ORC's readers does not have them."""

_LAST_FRACTIONS: Final = range(-MICROS_A_SECOND + 1_000, 0)
"""The last second before 1970 but for its first millisecond: ORC's Java reader adds a second (ORC-763)."""

_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_TIMESTAMP: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d:\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):?(\d\d))?| (\d\d:\d\d:\d\d)(?:\.(\d+))?)",
    re.ASCII,
)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_CLOCK: Final = re.compile(r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]")
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DECIMAL_TYPE: Final = re.compile(r"decimal\((\d+),(\d+)\)")
_LONGEST_EXPONENT: Final = 6
_MOST_KNOWN: Final = 20_000

_BIGINTS: Final = range(-(2**63), 2**63)
_INTS: Final = range(-(2**31), 2**31)


class _Checked(dict[str, int]):
    """What texts mean, by text: one that was not seen before is checked, and a KeyError where it is not valid."""

    def __init__(self, check: Callable[[str], int | None], most: int) -> None:
        super().__init__()
        self._check = check
        self._most = most

    def __missing__(self, text: str) -> int:
        value = self._check(text)
        if value is None:
            raise KeyError(text)
        if len(self) >= self._most:
            self.clear()
        self[text] = value
        return value


def _day_of_text(text: str) -> int | None:
    if not _DATE.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text).toordinal() - _EPOCH_ORDINAL
    except ValueError:
        return None


def _sound_day_of_text(text: str) -> int | None:
    days = _day_of_text(text)
    return None if days is None or days in _LACKING_DAYS else days


def _micros_of_day(text: str) -> int | None:
    days = _day_of_text(text)
    return None if days is None else days * MICROS_A_DAY


def _micros_of_clock(text: str) -> int | None:
    """Of `T17:18:15`, whose form has been checked but for an unknown text."""
    if not _CLOCK.fullmatch(text):
        return None
    return ((int(text[1:3]) * 60 + int(text[4:6])) * 60 + int(text[7:])) * MICROS_A_SECOND


def _micros_of_day_since_1970(text: str) -> int | None:
    micros = _micros_of_day(text)
    return None if micros is None or micros < 0 else micros


_MICROS_BY_DAY: Final = _Checked(_micros_of_day, _MOST_KNOWN)
_MICROS_BY_DAY_SINCE_1970: Final = _Checked(_micros_of_day_since_1970, _MOST_KNOWN)
_MICROS_BY_CLOCK: Final = _Checked(_micros_of_clock, 86_400)
_MICROS_BY_MILLIS: Final = {f".{millis:03d}Z": millis * 1_000 for millis in range(1_000)}
_SOUND_DAYS: Final = _Checked(_sound_day_of_text, _MOST_KNOWN)


def conversion(kind: str) -> Conversion | None:
    """Return the conversion of a column type; None for `string`, where the record's text counts.

    The conversion of a decimal takes a JSON string or the record's text of another value (`JsonText`).
    """
    if kind == "string":
        return None
    if match := _DECIMAL_TYPE.fullmatch(kind):
        return partial(_decimal, digits=int(match[1]), scale=int(match[2]))
    return _CONVERSIONS[kind]


def converted_at_once(kind: str, values: list[Any]) -> list[Any] | None:
    """Return a whole column converted, or None where a value is not of the usual form: then convert one by one.

    Args:
        kind: type of the column.
        values: as JSON parsers return them; moments by their texts (`moment_text`).
    """
    if usual := _USUAL_KINDS.get(kind):
        if not set(map(type, values)) <= usual:
            return None
        valid = _RANGES.get(kind)
        if valid and (numbers := [value for value in values if value is not None]):
            return values if min(numbers) in valid and max(numbers) in valid else None
        return values
    try:
        if kind == "date":
            days = _SOUND_DAYS
            return [None if text is None else days[text] for text in values]
        if kind == "timestamp":
            days, clocks, millis = _MICROS_BY_DAY_SINCE_1970, _MICROS_BY_CLOCK, _MICROS_BY_MILLIS
            return [
                None if text is None else days[text[:10]] + clocks[text[10:19]] + millis[text[19:]] for text in values
            ]
    except (KeyError, TypeError):
        return None
    return None


class JsonText(str):
    """The text in the record of a JSON value that is not a string."""

    __slots__ = ()


def _timestamp(value: Any) -> Any:
    text = moment_text(value)
    if not text:
        return None
    micros = _micros(text) if text is not UNPARSABLE else None
    if micros is None:
        return UNPARSABLE
    if micros < 0 and (micros in _LAST_FRACTIONS or micros // MICROS_A_DAY in _LACKING_DAYS):
        return UNPARSABLE
    return micros


def _date(value: Any) -> Any:
    text = moment_text(value)
    if not text:
        return None
    if text is UNPARSABLE:
        return UNPARSABLE
    # A day alone has ten characters, a moment more.
    if len(text) == len("YYYY-MM-DD"):
        days = _sound_day_of_text(text)
        return UNPARSABLE if days is None else days
    micros = _micros(text)
    if micros is None or micros // MICROS_A_DAY in _LACKING_DAYS:
        return UNPARSABLE
    return micros // MICROS_A_DAY


def moment_text(value: Any) -> Any:
    """Return the text of a moment, a string or the platform's form `{"d_date": "…"}`; else None or `UNPARSABLE`."""
    if type(value) is dict:
        value = value.get("d_date") if len(value) == 1 else UNPARSABLE
        return value if type(value) is str else UNPARSABLE
    return value if value is None or type(value) is str else UNPARSABLE


def _micros(text: str) -> int | None:
    """Return a timestamp's microseconds since 1970 UTC, or None where the text is none of the years 1 to 9999."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    day, clock, fraction, sign, hours, minutes, spaced_clock, spaced_fraction = match.groups()
    try:
        micros = _MICROS_BY_DAY[day] + _MICROS_BY_CLOCK[f"T{clock or spaced_clock}"]
    except KeyError:
        return None
    micros += int(((fraction or spaced_fraction or "") + "000000")[:6])
    if sign:
        if hours > "23" or minutes > "59":
            return None
        offset = (int(hours) * 60 + int(minutes)) * 60 * MICROS_A_SECOND
        micros += offset if sign == "-" else -offset
        if not 1 <= micros // MICROS_A_DAY + _EPOCH_ORDINAL <= date.max.toordinal():
            return None
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


_RANGES: Final = {"bigint": _BIGINTS, "int": _INTS}
_USUAL_KINDS: Final[dict[str, set[type]]] = {
    "bigint": {int, type(None)},
    "int": {int, type(None)},
    "double": {float, type(None)},
    "boolean": {bool, type(None)},
}

_CONVERSIONS: Final[dict[str, Conversion]] = {
    "timestamp": _timestamp,
    "date": _date,
    "bigint": partial(_integer, valid=_BIGINTS),
    "int": partial(_integer, valid=_INTS),
    "double": _double,
    "boolean": _boolean,
}
