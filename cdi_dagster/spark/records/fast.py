r"""The fast path: the same bytes as `plain`, or "not mine".

A payload is parsed once and written once by orjson, sorted (`write`); what the contract asks beyond that is done on the
written text, where C code finds it, and on that of many records at once (`finish`). That text is what `plain` makes
too, wherever this module does not give up:

- its quotes are all escaped inside strings, so an unescaped quote begins or ends a string, and a string between
  `[:[,]` and `[,}\]]` is a value, one before `:` a key;
- orjson writes what `json` writes except floats that either of them writes with an exponent (an integer beyond 64
  bits becomes such a float), and refuses half surrogates, NaN and nesting beyond 254 levels;
- replacing text inside values changes neither the order nor the number of keys; keys that would change are left to
  `plain`, but for keys that are alone in their object (`$oid`, `$date`);
- a record's text holds no newline, begins with `{` and ends with `}`: no pattern finds anything across two of them,
  since what it begins in a string it ends at that string's quote.

Internal to `records`. Whatever is added here needs its reason above and the differential test behind it.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from cdi_dagster.spark.records.dates import EPOCH, is_date_shaped
from cdi_dagster.spark.records.rules import Rules

_CLOCK = rb"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}"
# Days that exist in every year; 29 February is left to `_unusual_date`.
_DAY = rb"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
_BEGINS = rb'(?<=[:\[,])"'
_ENDS = rb'"(?=[,}\]])'
_TO_SIGN: Final = len('"2020-05-21T17:18:15.693')
_LEAST_APART: Final = len('"2020-05-21T17:18:15.693Z"')
# Dates are looked for by the character that follows their milliseconds, rare ones both; so this looks back from there.
_USUAL_DATE = re.compile(_BEGINS + rb"[1-9][0-9]{3}-" + _DAY + rb"T" + _CLOCK + rb"(?:Z|\+0000)" + _ENDS)
_DIGIT = rb"[0-9\x80-\xff]"  # a digit, or a byte of a digit of another script
_END = rb"(?:Z|\+" + _DIGIT + rb"+)(?:\\n)?"
_END_OF_DATE = re.compile(rb"(?<=" + _DIGIT + rb")" + _END + _ENDS)
_MAYBE_DATE = re.compile(_BEGINS + rb"(D-D-DTD:D:D\.D".replace(b"D", _DIGIT + b"+") + _END + rb")" + _ENDS)
_CHECKED_DATE_TEXT = re.compile(
    r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T" + _CLOCK.decode() + r"(?:Z|\+(?:[01][0-9]|2[0-3])[0-5][0-9])"
)
_USUAL_DATE_TEXT = re.compile((rb"[1-9][0-9]{3}-" + _DAY + rb"T" + _CLOCK + rb"(?:Z|\+0000)").decode())

_POSITIVE_EXPONENT = re.compile(rb"(?<=[0-9]e)\+[0-9]+[,}\]]")
# Each starts with its rarest character and looks around it: a pattern comes to those sooner than `in` to the whole.
_NEGATIVE_EXPONENT = re.compile(rb"-(?<=[0-9]e-)[0-9]+[,}\]]")
_TINY_FLOAT = re.compile(rb"\.(?<=0\.)[0]000")
_ARCHIVED = re.compile(rb"_[a]rchived")

# From the last of them in a key to the key's end; not from every one, which would take the square of a long value.
_DOLLAR_IN_KEY = re.compile(rb'\$[^"\\$]*+(?:\\.[^"\\$]*+)*+":')
_LINE_BREAK_IN_KEY = re.compile(rb'(?<!\\)(?:\\\\)*+\\[rn][^"\\]*+(?:\\[^rn][^"\\]*+)*+":')
_ARCHIVED_IN_KEY = re.compile(rb'_archived[^"\\]*+(?:\\.[^"\\]*+)*+":')
_MOST_ARCHIVED: Final = 50  # that pattern does look from every one
_LINE_BREAK = re.compile(rb"(?<!\\)\\[r|n]")
_MEMBER_DATE_OBJECT = re.compile(
    rb':\{"\$date":(\{"d_date":"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"\})\}'
)
_MEMBER_ODD_DATE_OBJECT = re.compile(rb':\{"\$date":[^{\[]')
_LONE_DOLLAR_KEY = re.compile(rb'\{"\$([A-Za-z]+":(?:"[^"\\]*"|[-0-9.]+|null|true|false|\{"d_date":"[^"\\]*"\})\})')

_LAST_MODIFIED: Final = "_lastModifiedDateTime"
# Ends a wrapped date until all are wrapped; unescaped, no other control character is in the text but the newlines.
_WRAPPED: Final = b"\x01"
_SORT_KEYS: Final = orjson.OPT_SORT_KEYS

_loads = orjson.loads
_dumps = orjson.dumps
_fragment = orjson.Fragment


def write(plaintext: bytes, modified: str, rules: Rules) -> bytes | None:
    """Return the text of one payload's record, to be finished; None where only `plain` knows (a reject, too).

    Args:
        plaintext: the decrypted dbObject.
        modified: the envelope's last modified date as text.
        rules: of its collection.
    """
    try:
        record = _loads(plaintext)
    except orjson.JSONDecodeError:
        return None
    if type(record) is not dict:
        return None
    if rules.audit:
        audit_type = record.get("auditType")
        record = record.get("context")
        if type(record) is not dict or not record or not audit_type:
            return None
        record["AUDIT_EVENT"] = audit_type
        usual = _USUAL_DATE_TEXT.fullmatch(modified)
        record["TIME_STAMP"] = record["TIME_STAMP_ORIG"] = _wrapped(modified) if usual else modified
    stated = _last_modified(record)
    if stated is None or not _USUAL_DATE_TEXT.fullmatch(stated):
        return None
    record[_LAST_MODIFIED] = _wrapped(stated)
    if "_id" in record and not _wrap_id(record):
        return None
    try:
        return _dumps(record, None, _SORT_KEYS)
    except orjson.JSONEncodeError:
        return None


def _wrapped(date: str) -> orjson.Fragment:
    return _fragment(f'{{"d_date":"{date[:23]}\x01')


def _last_modified(record: dict[str, Any]) -> str | None:
    """Return the last modified date as stated, or None where that is no string."""
    for name in (_LAST_MODIFIED, "_removedDateTime", "createdDateTime"):
        stated = record.get(name)
        if type(stated) is dict:
            stated = stated.get("$date")
        if stated:
            return stated if type(stated) is str else None
    return EPOCH


def _wrap_id(record: dict[str, Any]) -> bool:
    """Wrap a primitive id under its final name; return whether that was possible."""
    record_id = record["_id"]
    kind = type(record_id)
    if kind is float:  # perhaps an integer beyond 64 bits
        return False
    if kind is int or kind is bool or (kind is str and not is_date_shaped(record_id)):
        record["_id"] = {"d_oid": str(record_id)}
    return True


def finish(text: bytes, rules: Rules) -> bytes | None:
    """Wrap dates and sanitise; return None where `plain` has to look at one of the records.

    Args:
        text: what `write` returned: of one record, or of many, each with a newline after it, for a third of the time.
        rules: those that all of them were written by.
    """
    try:
        return _finished(text, rules)
    except _CrowdedError:
        return None


def _finished(text: bytes, rules: Rules) -> bytes | None:
    if _NEGATIVE_EXPONENT.search(text) or _TINY_FLOAT.search(text):
        return None
    for sign in (b"+", b"Z"):
        wrapped = _wrap_dates(text, sign)
        if wrapped is None:
            return None
        text = wrapped
    text = text.replace(_WRAPPED, b'Z"}')
    if b"\\" in text:
        if rules.drops_line_breaks:
            if _LINE_BREAK_IN_KEY.search(text):
                return None
            text = _LINE_BREAK.sub(b"", text)
        if b"\\u0000" in text:
            return None
    if b"$" in text:
        renamed = _rename_dollars(text)
        if renamed is None:
            return None
        text = renamed
    if _ARCHIVED.search(text):
        if text.count(b"_archived") > _MOST_ARCHIVED or _ARCHIVED_IN_KEY.search(text):
            return None
        text = text.replace(b"_archived", b"_removed")
    return text


def _wrap_dates(text: bytes, sign: bytes) -> bytes | None:
    """Wrap every date whose milliseconds this sign follows, or return None where `plain` has to look."""
    pieces: list[bytes] = []
    done = 0
    for place in _places(sign, text):
        start = place - _TO_SIGN
        if match := _USUAL_DATE.match(text, start):
            pieces += (text[done:start], b'{"d_date":', text[start:place], _WRAPPED)
            done = match.end()
        elif match := _END_OF_DATE.match(text, place):
            start = text.rfind(b'"', 0, place)
            date = _unusual_date(text, start)
            if date is None:
                return None
            if date:
                pieces += (text[done:start], b'{"d_date":"', date, _WRAPPED)
                done = match.end()
        elif _POSITIVE_EXPONENT.match(text, place):
            return None
    if not done:
        return text
    pieces.append(text[done:])
    return b"".join(pieces)


class _CrowdedError(Exception):
    """What is sought stands so close that looking at one after the other, here, would take long."""


def _places(part: bytes, text: bytes) -> Iterator[int]:
    most = 100 + len(text) // _LEAST_APART
    place = text.find(part)
    while place >= 0:
        if not most:
            raise _CrowdedError
        most -= 1
        yield place
        place = text.find(part, place + 1)


def _unusual_date(text: bytes, start: int) -> bytes | None:
    """Write, up to its Z, the date that begins here, which is not in UTC or may not exist.

    Empty where it is no date after all; None where `plain` has to look.
    """
    match = _MAYBE_DATE.match(text, start)
    if not match:
        return b""
    if not match[1].isascii():
        return None
    date = match[1].decode()
    if not is_date_shaped(date.replace("\\n", "\n")):
        return b""
    if not _CHECKED_DATE_TEXT.fullmatch(date):
        return None
    try:
        moment = datetime.fromisoformat(date).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{date[20:23]}".encode() if moment.year >= 1000 else None


def _rename_dollars(text: bytes) -> bytes | None:
    """Replace every `$`, or return None where that would change keys that have neighbours."""
    if _has_dollar_key(text):
        text = _MEMBER_DATE_OBJECT.sub(rb":\1", text)  # its date is wrapped already: once is enough
        if _MEMBER_ODD_DATE_OBJECT.search(text):
            return None
        text = _LONE_DOLLAR_KEY.sub(rb'{"d_\1', text)
        # What is left has neighbours, among which it would move.
        if _has_dollar_key(text):
            return None
    return text.replace(b"$", b"d_")


def _has_dollar_key(text: bytes) -> bool:
    return any(_DOLLAR_IN_KEY.match(text, place) for place in _places(b"$", text))
