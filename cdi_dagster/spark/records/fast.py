r"""The fast path: the same bytes as `plain`, or "not mine".

A payload is parsed once and written once by orjson, sorted; what the contract asks beyond that is done on the written
text, where C code finds it. That text is what `plain` makes, too, wherever this module does not give up:

- its quotes are all escaped inside strings, so an unescaped quote begins or ends a string, and a string between
  `[:[,]` and `[,}\]]` is a value, one before `:` a key;
- orjson writes what `json` writes except floats that either of them writes with an exponent (an integer beyond 64
  bits becomes such a float), and refuses half surrogates, NaN and nesting beyond 254 levels;
- replacing text inside values changes neither the order nor the number of keys; keys that would change are left to
  `plain`, but for keys that are alone in their object (`$oid`, `$date`).

Internal to `records`. Whatever is added here needs its reason above and the differential test behind it.
"""

import re
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from cdi_dagster.spark.records.dates import EPOCH, is_date_shaped
from cdi_dagster.spark.records.rules import Rules

_CLOCK = rb"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}"
# Days that exist in every year; 29 February is left to `_unusual_date`.
_DAY = rb"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
_DIGIT = rb"[0-9\x80-\xff]"  # a digit, or a byte of a digit of another script
# It starts with T, a rare letter that memchr finds, and looks back for the day. Without group 1 it is a date in UTC
# that surely exists; group 1 is anything else that may be a date, or end like one.
_DATE_FROM_T = re.compile(
    rb"T(?:"
    rb'(?<=[:\[,]"[1-9][0-9]{3}-' + _DAY + rb"T)" + _CLOCK + rb'(?:Z|\+0000)"(?=[,}\]])|'
    rb"(?<=" + _DIGIT + rb"T)(" + _DIGIT + rb"+:" + _DIGIT + rb"+:" + _DIGIT + rb"+\." + _DIGIT + rb"+"
    rb"(?:Z|\+" + _DIGIT + rb'+)(?:\\n)?"(?=[,}\]]))'
    rb")"
)
_BEFORE_T: Final = len(b'"2020-05-21')
_TO_MILLISECONDS: Final = len(b'"2020-05-21T17:18:15.693')
_DATE_SHAPED = re.compile(
    rb'(?<=[:\[,])"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}(?:Z|\+[0-9]{4})(?:\\n)?"'
)
_CHECKED_DATE_TEXT = re.compile(
    r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T" + _CLOCK.decode() + r"(?:Z|\+(?:[01][0-9]|2[0-3])[0-5][0-9])"
)
_USUAL_DATE_TEXT = re.compile((rb"[1-9][0-9]{3}-" + _DAY + rb"T" + _CLOCK + rb"(?:Z|\+0000)").decode())

# Each starts with one rare character, that memchr finds, and looks around it: several times faster than `in`.
_NEGATIVE_EXPONENT = re.compile(rb"-(?<=[0-9]e-)[0-9]+[,}\]]")
_POSITIVE_EXPONENT = re.compile(rb"\+(?<=[0-9]e\+)[0-9]+[,}\]]")
_TINY_FLOAT = re.compile(rb"\.(?<=0\.)[0]000")
_ARCHIVED = re.compile(rb"_[a]rchived")

# From the last of them in a key to the key's end; not from every one, which would take the square of a long value.
_DOLLAR_IN_KEY = re.compile(rb'\$[^"\\$]*+(?:\\.[^"\\$]*+)*+":')
_LINE_BREAK_IN_KEY = re.compile(rb'\\[rn][^"\\]*+(?:\\[^rn][^"\\]*+)*+":')
_ARCHIVED_IN_KEY = re.compile(rb'_archived[^"\\]*+(?:\\.[^"\\]*+)*+":')
_MOST_ARCHIVED: Final = 50  # that pattern does look from every one
_LINE_BREAK = re.compile(rb"(?<!\\)\\[r|n]")
_MEMBER_DATE_OBJECT = re.compile(
    rb':\{"\$date":(\{"d_date":"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"\})\}'
)
_MEMBER_ODD_DATE_OBJECT = re.compile(rb':\{"\$date":[^{\[]')
_LONE_DOLLAR_KEY = re.compile(rb'\{"\$([A-Za-z]+":(?:"[^"\\]*"|[-0-9.]+|null|true|false|\{"d_date":"[^"\\]*"\})\})')

_LAST_MODIFIED: Final = "_lastModifiedDateTime"
# The dates that every record gets stand in the written text as one control character (which nothing else in JSON text
# does, unescaped) until the other dates are wrapped: found in no time, and not taken for dates once more.
_LAST_MODIFIED_MARK: Final = b"\x01"
_STAMP_MARK: Final = b"\x02"
_LAST_MODIFIED_FRAGMENT: Final = orjson.Fragment(_LAST_MODIFIED_MARK)
_STAMP_FRAGMENT: Final = orjson.Fragment(_STAMP_MARK)
_SORT_KEYS: Final = orjson.OPT_SORT_KEYS

_loads = orjson.loads
_dumps = orjson.dumps


def try_record(plaintext: bytes, modified: str, rules: Rules) -> bytes | None:
    """Return the canonical record of one payload, or None where only `plain` knows (a reject, too).

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
    stamp = b""
    if rules.audit:
        audit_type = record.get("auditType")
        record = record.get("context")
        if type(record) is not dict or not record or not audit_type:
            return None
        stamp = _stamp(record, audit_type, modified)
    stated = _last_modified(record)
    if stated is None or not _USUAL_DATE_TEXT.fullmatch(stated):
        return None
    record[_LAST_MODIFIED] = _LAST_MODIFIED_FRAGMENT
    if "_id" in record and not _wrap_id(record):
        return None
    try:
        text = _dumps(record, None, _SORT_KEYS)
    except orjson.JSONEncodeError:
        return None
    return finish(text, _wrapped(stated), stamp, rules)


def _stamp(context: dict[str, Any], audit_type: Any, modified: str) -> bytes:
    """Stamp an audit record with its type and time; return what its time's mark stands for."""
    usual = _USUAL_DATE_TEXT.fullmatch(modified) is not None
    context["AUDIT_EVENT"] = audit_type
    context["TIME_STAMP"] = context["TIME_STAMP_ORIG"] = _STAMP_FRAGMENT if usual else modified
    return _wrapped(modified) if usual else b""


def _wrapped(date: str) -> bytes:
    return b'{"d_date":"%bZ"}' % date[:23].encode()


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


def finish(text: bytes, last_modified: bytes, stamp: bytes, rules: Rules) -> bytes | None:
    """Wrap dates and sanitise, on the written text, or return None."""
    if _NEGATIVE_EXPONENT.search(text) or _TINY_FLOAT.search(text):
        return None
    wrapped = _wrap_dates(text)
    if wrapped is None or (b"+" in wrapped and _POSITIVE_EXPONENT.search(wrapped)):
        return None
    text = wrapped.replace(_LAST_MODIFIED_MARK, last_modified).replace(_STAMP_MARK, stamp)
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


def _wrap_dates(text: bytes) -> bytes | None:
    """Wrap every date in the text, or return None where `plain` has to look."""
    pieces: list[bytes] = []
    done = 0
    for match in _DATE_FROM_T.finditer(text):
        start = match.start() - _BEFORE_T
        if match.lastindex is None:
            pieces += (text[done:start], b'{"d_date":', text[start : start + _TO_MILLISECONDS], b'Z"}')
        elif not text[text.rfind(b'"', 0, match.start()) : match.end()].isascii():
            return None
        elif start < 0 or not _DATE_SHAPED.match(text, start):
            continue
        else:
            date = _unusual_date(text[start + 1 : match.end() - 1].decode())
            if date is None:
                return None
            pieces += (text[done:start], b'{"d_date":"', date.encode(), b'"}')
        done = match.end()
    if not done:
        return text
    pieces.append(text[done:])
    return b"".join(pieces)


def _unusual_date(text: str) -> str | None:
    """Write a date that is not in UTC, or may not exist, or return None where `plain` has to look."""
    if not _CHECKED_DATE_TEXT.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{text[20:23]}Z" if moment.year >= 1000 else None


def _rename_dollars(text: bytes) -> bytes | None:
    """Replace every `$`, or return None where that would change keys that have neighbours."""
    if _DOLLAR_IN_KEY.search(text):
        text = _MEMBER_DATE_OBJECT.sub(rb":\1", text)  # its date is wrapped already: once is enough
        if _MEMBER_ODD_DATE_OBJECT.search(text):
            return None
        text = _LONE_DOLLAR_KEY.sub(rb'{"d_\1', text)
        # What is left has neighbours, among which it would move.
        if _DOLLAR_IN_KEY.search(text):
            return None
    return text.replace(b"$", b"d_")
