r"""The fast path: the same bytes as `plain`, or None.

A payload is parsed once and written once by orjson, sorted (`write`). The rest of the contract is done on the written
text, by C code, for many records at once (`finish`). Wherever this module does not return None, its text is that of
`plain`:

- quotes inside strings are all escaped, so an unescaped quote begins or ends a string, and a string between
  `[:[,]` and `[,}\]]` is a value, one before `:` a key;
- orjson writes what `json` writes except floats that either of them writes with an exponent (an integer beyond 64
  bits becomes such a float), and refuses half surrogates, NaN and nesting beyond 254 levels;
- replacing text inside values changes neither the order nor the number of keys; keys that would change are left to
  `plain`, except keys that are alone in their object (`$oid`, `$date`);
- a record's text holds no newline, begins with `{` and ends with `}`: no pattern matches across two of them,
  since a match that begins in a string ends at that string's quote.

Internal to `records`. Every addition needs its reason above and the differential test.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from cdi_dagster.core.collections import RecordRules, Transform
from cdi_dagster.spark.records.dates import EPOCH, is_date_shaped

_CLOCK = rb"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}"
# Days that exist in every year; 29 February is left to `_unusual_date`.
_DAY = rb"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
_BEGINS = rb'(?<=[:\[,])"'
_ENDS = rb'"(?=[,}\]])'
_TO_SIGN: Final = len('"2020-05-21T17:18:15.693')
_LEAST_APART: Final = len('"2020-05-21T17:18:15.693Z"')
# Dates are found by the character after their milliseconds (both are rare); the pattern then looks back from there.
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
# Each starts with its rarest character and looks around it: faster than searching the whole with `in`.
_NEGATIVE_EXPONENT = re.compile(rb"-(?<=[0-9]e-)[0-9]+[,}\]]")
_TINY_FLOAT = re.compile(rb"\.(?<=0\.)[0]000")
_ARCHIVED = re.compile(rb"_[a]rchived")

# From the last `$` in a key to the key's end; from every one, a long value would take quadratic time.
_DOLLAR_IN_KEY = re.compile(rb'\$[^"\\$]*+(?:\\.[^"\\$]*+)*+":')
_LINE_BREAK_IN_KEY = re.compile(rb'(?<!\\)(?:\\\\)*+\\[rn][^"\\]*+(?:\\[^rn][^"\\]*+)*+":')
_ARCHIVED_IN_KEY = re.compile(rb'_archived[^"\\]*+(?:\\.[^"\\]*+)*+":')
_MOST_ARCHIVED: Final = 50  # that pattern does start from every one
_LINE_BREAK = re.compile(rb"(?<!\\)\\[r|n]")
_MEMBER_DATE_OBJECT = re.compile(
    rb':\{"\$date":(\{"d_date":"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"\})\}'
)
_MEMBER_ODD_DATE_OBJECT = re.compile(rb':\{"\$date":[^{\[]')
_LONE_DOLLAR_KEY = re.compile(rb'\{"\$([A-Za-z]+":(?:"[^"\\]*"|[-0-9.]+|null|true|false|\{"d_date":"[^"\\]*"\})\})')

_LAST_MODIFIED: Final = "_lastModifiedDateTime"
# Ends a wrapped date until all are wrapped; the text holds no other unescaped control character but newlines.
_WRAPPED: Final = b"\x01"
_SORT_KEYS: Final = orjson.OPT_SORT_KEYS

_loads = orjson.loads
_dumps = orjson.dumps
_fragment = orjson.Fragment


def write(plaintext: bytes, modified: str, event_type: str, rules: RecordRules) -> bytes | None:
    """Return the text of one payload's record, to be finished; None where `plain` must decide (also for a reject).

    Args:
        plaintext: the decrypted dbObject.
        modified: the envelope's last modified date as text.
        event_type: the envelope's `@type` as text.
        rules: of its collection.
    """
    try:
        record = _loads(plaintext)
    except orjson.JSONDecodeError:
        return None
    if type(record) is not dict:
        return None
    unless_stated = EPOCH
    if rules.transform is Transform.AUDIT:
        audit_type = record.get("auditType")
        record = record.get("context")
        if type(record) is not dict or not record or not audit_type:
            return None
        record["AUDIT_EVENT"] = audit_type
        usual = _USUAL_DATE_TEXT.fullmatch(modified)
        record["TIME_STAMP"] = record["TIME_STAMP_ORIG"] = _wrapped(modified) if usual else modified
    elif rules.transform is Transform.EQUALITY:
        record["@type"] = event_type
        unless_stated = modified or EPOCH
    stated = _last_modified(record, unless_stated)
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


def _last_modified(record: dict[str, Any], unless_stated: str) -> str | None:
    """Return the last modified date as stated, or None where it is not a string."""
    for name in (_LAST_MODIFIED, "_removedDateTime", "createdDateTime"):
        stated = record.get(name)
        if type(stated) is dict:
            stated = stated.get("$date")
        if stated:
            return stated if type(stated) is str else None
    return unless_stated


def _wrap_id(record: dict[str, Any]) -> bool:
    """Wrap a primitive id under its final name; return whether that was possible."""
    record_id = record["_id"]
    kind = type(record_id)
    if kind is float:  # perhaps an integer beyond 64 bits
        return False
    if kind is int or kind is bool or (kind is str and not is_date_shaped(record_id)):
        record["_id"] = {"d_oid": str(record_id)}
    return True


def finish(text: bytes, rules: RecordRules) -> bytes | None:
    """Wrap dates and sanitise; return None where `plain` has to make one of the records.

    Args:
        text: the text from `write`: one record, or many, each followed by a newline, which takes a third of the time.
        rules: the rules by which all of them were written.
    """
    try:
        return _finished(text, rules)
    except _CrowdedError:
        return None


def _finished(text: bytes, rules: RecordRules) -> bytes | None:
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
    """Wrap every date whose milliseconds are followed by this sign; None where `plain` has to decide."""
    pieces: list[bytes] = []
    done = 0
    for position in _positions(sign, text):
        start = position - _TO_SIGN
        if match := _USUAL_DATE.match(text, start):
            pieces += (text[done:start], b'{"d_date":', text[start:position], _WRAPPED)
            done = match.end()
        elif match := _END_OF_DATE.match(text, position):
            start = text.rfind(b'"', 0, position)
            date = _unusual_date(text, start)
            if date is None:
                return None
            if date:
                pieces += (text[done:start], b'{"d_date":"', date, _WRAPPED)
                done = match.end()
        elif _POSITIVE_EXPONENT.match(text, position):
            return None
    if not done:
        return text
    pieces.append(text[done:])
    return b"".join(pieces)


class _CrowdedError(Exception):
    """So many matches stand so close that checking one after the other here would take long."""


def _positions(part: bytes, text: bytes) -> Iterator[int]:
    most = 100 + len(text) // _LEAST_APART
    position = text.find(part)
    while position >= 0:
        if not most:
            raise _CrowdedError
        most -= 1
        yield position
        position = text.find(part, position + 1)


def _unusual_date(text: bytes, start: int) -> bytes | None:
    """Return, up to its Z, the date that begins here, which is not in UTC or may not exist.

    Empty where it is not a date; None where `plain` has to decide.
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
    """Replace every `$`, or return None where that would change keys with neighbours."""
    if _has_dollar_key(text):
        text = _MEMBER_DATE_OBJECT.sub(rb":\1", text)  # its date is wrapped already
        if _MEMBER_ODD_DATE_OBJECT.search(text):
            return None
        text = _LONE_DOLLAR_KEY.sub(rb'{"d_\1', text)
        # The rest has neighbours, among which it would change places.
        if _has_dollar_key(text):
            return None
    return text.replace(b"$", b"d_")


def _has_dollar_key(text: bytes) -> bool:
    return any(_DOLLAR_IN_KEY.match(text, position) for position in _positions(b"$", text))
