"""JSON as the record contract reads and writes it: Python's own `json`, with its edge cases fixed.

Nesting is counted, so that the limit does not depend on the caller's stack; integers are exact at any length, although
Python refuses to convert long ones. Internal to `records`.
"""

import json
import re
from collections.abc import Callable
from itertools import accumulate
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, NamedTuple

MAX_DEPTH = 1024
"""Deepest nesting of objects and lists: as deep as orjson reads. Real payloads stay below 20."""

_LONG_INTEGER_DIGITS = 4000  # Python converts up to 4,300 by default
_LONG_INTEGER = re.compile(f"[0-9]{{{_LONG_INTEGER_DIGITS}}}")
_ESCAPE_PAIR = re.compile(r"\\.", re.DOTALL)
_NOT_A_BRACKET = re.compile(r"[^\[\]{}]+")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


class LongInteger:
    """An integer too long for Python to convert; only its text matters, because nothing calculates with it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class NotJsonError(ValueError):
    """The text is not JSON, or too deep; the message holds a position and no text."""


def parse(text: str) -> Any:
    """Read JSON as `json.loads` does: NaN and Infinity too, the last of equal keys wins.

    Raises:
        NotJsonError: not JSON, or nested deeper than MAX_DEPTH.
    """
    if _is_deeper_than(MAX_DEPTH, text):
        raise NotJsonError(f"nested deeper than {MAX_DEPTH}")
    try:
        if _LONG_INTEGER.search(text):
            return json.loads(text, parse_int=_integer)
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise NotJsonError(f"not JSON at character {error.pos}") from None


def write_ascii(value: Any) -> str:
    """Write a value as `json.dumps` does by default: `", "` and `": "` between, everything not ASCII escaped."""
    try:
        return json.dumps(value)
    except TypeError:
        return _write(value, _ASCII)


def write_canonical(value: Any) -> str:
    """Write a value with sorted keys, no spaces and nothing ASCII-escaped."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except TypeError:
        return _write(value, _CANONICAL)


def _integer(text: str) -> int | LongInteger:
    return int(text) if len(text) <= _LONG_INTEGER_DIGITS else LongInteger(text)


class _Style(NamedTuple):
    quote: Callable[[str], str]
    comma: str
    colon: str
    sort_keys: bool


_ASCII = _Style(quote=encode_basestring_ascii, comma=", ", colon=": ", sort_keys=False)
_CANONICAL = _Style(quote=encode_basestring, comma=",", colon=":", sort_keys=True)


def _write(value: Any, style: _Style) -> str:
    """Write a value that holds a LongInteger, which `json` cannot."""
    out: list[str] = []
    _write_to(out, value, style)
    return "".join(out)


def _write_to(out: list[str], value: Any, style: _Style) -> None:
    # Plain loops: a comprehension would take a second frame of Python's stack at every level.
    comma = ""
    if isinstance(value, list):
        out.append("[")
        for item in value:
            out.append(comma)
            _write_to(out, item, style)
            comma = style.comma
        out.append("]")
    elif isinstance(value, dict):
        out.append("{")
        for key in sorted(value) if style.sort_keys else value:
            out += (comma, style.quote(key), style.colon)
            _write_to(out, value[key], style)
            comma = style.comma
        out.append("}")
    elif isinstance(value, str):
        out.append(style.quote(value))
    else:
        out.append(value.text if isinstance(value, LongInteger) else json.dumps(value))


def _is_deeper_than(limit: int, text: str) -> bool:
    """Count the nesting of brackets outside strings; for text that is not JSON the result does not matter."""
    if text.count("[") + text.count("{") <= limit:
        return False
    outside_strings = "".join(_ESCAPE_PAIR.sub("", text).split('"')[::2])
    brackets = _NOT_A_BRACKET.sub("", outside_strings)
    return any(depth > limit for depth in accumulate(map(_STEP.__getitem__, brackets)))
