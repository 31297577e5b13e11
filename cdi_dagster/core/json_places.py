"""Where the values of a JSON text are: the line of each, by its path, for messages to the person who wrote it."""

import json
import re
from collections.abc import Iterator

Place = tuple[str | int, ...]
"""Keys and list positions from the top down to a value."""

_Token = tuple[str, int]
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


class JsonPlaces:
    """The places of a JSON text that has been read without an error.

    Attributes:
        lines: line of each value, the first line is 1.
        repeated: keys that an object has twice: JSON takes the last one, which is never what was meant.
    """

    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {}
        self.repeated: list[Place] = []
        tokens = _tokens(text)
        self._walk(next(tokens), tokens, ())

    def describe(self, place: Place) -> str:
        """Return the place as people write it, with its line: `columns[2].type (line 14)`."""
        written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        known = next((place[:end] for end in range(len(place), 0, -1) if place[:end] in self.lines), None)
        return (written or "the definition") + (f" (line {self.lines[known]})" if known else "")

    def _walk(self, first: _Token, tokens: Iterator[_Token], place: Place) -> None:
        text, self.lines[place] = first
        if text == "{":
            self._walk_object(tokens, place)
        elif text == "[":
            self._walk_list(tokens, place)

    def _walk_object(self, tokens: Iterator[_Token], place: Place) -> None:
        for text, _ in tokens:
            if text == "}":
                return
            if text != ",":
                key = (*place, json.loads(text))
                if key in self.lines:
                    self.repeated.append(key)
                next(tokens)  # the colon
                self._walk(next(tokens), tokens, key)

    def _walk_list(self, tokens: Iterator[_Token], place: Place) -> None:
        position = 0
        for token in tokens:
            if token[0] == "]":
                return
            if token[0] != ",":
                self._walk(token, tokens, (*place, position))
                position += 1


def _tokens(text: str) -> Iterator[_Token]:
    line, end = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", end, match.start())
        end = match.start()
        yield match[0], line
