"""The contract of table values, written plainly with the standard library, to compare the job's with.

Takes every value from the record's text by walking it once with `json` itself; shares nothing with the job.
"""

import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

_MICRO = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Refused(Exception):
    """The value is not of the type: null, and counted."""


def value_of(record: str, path: list[str], kind: str) -> tuple[Any, bool]:
    """Return the typed value, None for null, and whether it counts as unparsable."""
    text = text_at(record, path)
    if text is None or text == "null":
        return None, False
    try:
        return _typed(text, kind), False
    except Refused:
        return None, True


def text_at(record: str, path: list[str]) -> str | None:
    """Return the text of the value at a path, character for character, or None where there is none."""
    text: str | None = record
    for key in path:
        if text is None or not text.startswith("{"):
            return None
        text = _members(text).get(key)
    return text


def _members(text: str) -> dict[str, str]:
    decoder = json.JSONDecoder()
    members, position = {}, 1
    while text[position] != "}":
        key, position = decoder.raw_decode(text, position)
        start = position + 1
        _, position = decoder.raw_decode(text, start)
        members[key] = text[start:position]
        position += text[position] == ","
    return members


def _typed(text: str, kind: str) -> Any:
    is_text = text.startswith('"')
    if kind == "string":
        return json.loads(text) if is_text else text
    if kind in ("timestamp", "date") and text.startswith("{"):
        members = _members(text)
        if list(members) != ["d_date"] or not members["d_date"].startswith('"'):
            raise Refused
        text, is_text = members["d_date"], True
    plain = json.loads(text) if is_text else text
    if is_text and plain == "":
        return None
    if kind in ("timestamp", "date"):
        if not is_text:
            raise Refused
        return _timestamp(plain) if kind == "timestamp" else _date(plain)
    if kind in ("bigint", "int"):
        if not re.fullmatch(r"[+-]?[0-9]+" if is_text else r"-?[0-9]+", plain):
            raise Refused
        number, bits = int(plain), 64 if kind == "bigint" else 32
        if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
            raise Refused
        return number
    if kind == "boolean":
        if plain not in ("true", "false"):
            raise Refused
        return plain == "true"
    return _number(plain, kind, is_text)


def _number(text: str, kind: str, is_text: bool) -> Any:
    if not is_text and text in ("NaN", "Infinity", "-Infinity") and kind == "double":
        return float(text)
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text):
        raise Refused
    if kind == "double":
        number = float(text if is_text or text != "-0" else "0")  # JSON parsers read an integer
        if number in (float("inf"), float("-inf")):
            raise Refused
        return number
    digits, scale = map(int, re.findall("[0-9]+", kind))
    unscaled = Fraction(Decimal(text)) * 10**scale
    if unscaled.denominator != 1 or abs(unscaled) >= 10**digits:
        raise Refused
    return int(unscaled)


def _timestamp(text: str) -> int:
    micros = _micros(text)
    second, fraction = divmod(micros, 1_000_000)
    if second == -1 and fraction >= 1_000:
        raise Refused  # no reader keeps it
    _require_hybrid(micros // 86_400_000_000)
    return micros


def _date(text: str) -> int:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        try:
            days = (date(*map(int, text.split("-"))) - date(1970, 1, 1)).days
        except ValueError:
            raise Refused from None
    else:
        days = _micros(text) // 86_400_000_000
    _require_hybrid(days)
    return days


def _require_hybrid(days: int) -> None:
    if (date(1582, 10, 5) - date(1970, 1, 1)).days <= days < (date(1582, 10, 15) - date(1970, 1, 1)).days:
        raise Refused


def _micros(text: str) -> int:
    match = re.fullmatch(
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})([T ])([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
        r"(Z|[+-][0-9]{2}:?[0-9]{2})?",
        text,
    )
    if match is None or (match[4] == " " and match[9]):
        raise Refused
    fraction = int((match[8] or "0").ljust(6, "0")[:6])
    try:
        moment = datetime(*(int(match[i]) for i in (1, 2, 3, 5, 6, 7)), fraction, tzinfo=UTC)  # type: ignore[misc, arg-type]
        if match[9] not in (None, "Z"):
            hours, minutes = int(match[9][1:3]), int(match[9][-2:])
            if hours > 23 or minutes > 59:
                raise Refused
            offset = timedelta(hours=hours, minutes=minutes)
            moment = moment + offset if match[9][0] == "-" else moment - offset
    except (ValueError, OverflowError):
        raise Refused from None
    return (moment - _EPOCH) // _MICRO


def moment_of(micros: int) -> datetime:
    """Return a typed timestamp, microseconds since 1970 UTC, as a datetime."""
    return _EPOCH + timedelta(microseconds=micros)


def day_of(days: int) -> date:
    """Return a typed date, days since 1970, as a date."""
    return date.fromordinal(days + _EPOCH.toordinal())
