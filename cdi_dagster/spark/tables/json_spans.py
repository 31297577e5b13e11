"""Finds values in the text of a record, character for character, at any depth of nesting. Pure, standard library only.

The slow way, for what a JSON parser does not return as it stands (`1e+22`) or refuses (`NaN`, nesting of thousands).
The record is one that was published: well-formed JSON; among equal keys the last one counts, as for every parser.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from json import decoder
from typing import Any, Final

_scan_string: Final[Callable[[str, int, bool], tuple[str, int]]] = decoder.scanstring  # type: ignore[attr-defined]
_BLANKS: Final = re.compile(r"[ \t\n\r]*")
_LITERAL: Final = re.compile(r"[^,\]} \t\n\r]+")
_NESTING: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_SHORT_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
_NO_NUMBERS: Final = ("NaN", "Infinity", "-Infinity")
_CONSTANTS: Final = {"true": True, "false": False, "null": None}

TOO_LARGE: Final = object()
"""A number beyond the doubles."""


def find(text: str, path: Sequence[str]) -> tuple[Any, str] | None:
    """Return the value at a path of keys and its text, or None where a walk over objects ends before.

    The value is what a JSON parser would return, but for what is below it: an object's members that are no strings are
    None, a list is empty. Integers of 20 digits and more are floats, or `TOO_LARGE`.
    """
    start, end = _value_at(text, 0)
    for key in path:
        if text[start] != "{":
            return None
        found = None
        for name, span in _members(text, start):
            if name == key:
                found = span
        if found is None:
            return None
        start, end = found
    found_text = text[start:end]
    return _value(found_text), found_text


def _value(span: str) -> Any:
    if span[0] == '"':
        return _scan_string(span, 1, False)[0]
    if span[0] == "{":
        return {key: _value(span[i:j]) if span[i] == '"' else None for key, (i, j) in _members(span, 0)}
    if span[0] == "[":
        return []
    if span in _CONSTANTS:
        return _CONSTANTS[span]
    if _SHORT_INTEGER.fullmatch(span):
        return int(span)
    number = float(span)
    return number if math.isfinite(number) or span in _NO_NUMBERS else TOO_LARGE


def _members(text: str, start: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield key, and start and end of the value, of each member of the object at `start`."""
    position = _after_blanks(text, start + 1)
    while text[position] != "}":
        key, position = _scan_string(text, position + 1, False)
        position = _after_blanks(text, position) + 1  # after the colon
        span = _value_at(text, position)
        yield key, span
        position = _after_blanks(text, span[1])
        if text[position] == ",":
            position = _after_blanks(text, position + 1)


def _value_at(text: str, position: int) -> tuple[int, int]:
    start = _after_blanks(text, position)
    if text[start] == '"':
        return start, _scan_string(text, start + 1, False)[1]
    if text[start] not in "{[":
        literal = _LITERAL.match(text, start)
        if literal is None:
            raise ValueError("not a JSON value")
        return start, literal.end()
    depth = 0
    for token in _NESTING.finditer(text, start):
        if token[0] in "{[":
            depth += 1
        elif token[0] in "}]":
            depth -= 1
            if depth == 0:
                return start, token.end()
    raise ValueError("not a whole JSON value")


def _after_blanks(text: str, position: int) -> int:
    match = _BLANKS.match(text, position)
    return match.end() if match else position
