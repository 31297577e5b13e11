"""Lines of another program's log, scrubbed to be shown on a run page, in an alert or in a status row.

Spark's log may quote the data it processed. What might be payload, a key or a credential is cut out; names of
classes, objects and locations stay. Pure; everything may use it.
"""

import re
from collections.abc import Iterable

MAX_LINE_CHARACTERS = 400
_CUT = "[cut]"
_JSON = re.compile(r"\{[^{}]*\"[^{}]*\}|\[[^\[\]]*\"[^\[\]]*\]")
_LONG_QUOTED = re.compile(r"\"[^\"]{64,}\"|'[^']{64,}'")
_HEXADECIMAL = re.compile(r"\b[0-9A-Fa-f]{24,}\b")
_TOKEN = re.compile(r"[A-Za-z0-9+/]{20,}={0,2}")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
# Words and numbers of paths and class names average 4 characters; those of base64 2.1.
_SHORTEST_MEAN_WORD = 3.4


def scrub(line: str) -> str:
    """Return one log line without what might be payload, key material or credentials, shortened."""
    text = line.rstrip()
    for pattern in (_JSON, _LONG_QUOTED, _HEXADECIMAL):
        while True:
            text, count = pattern.subn(_CUT, text)
            if not count:
                break
    text = _TOKEN.sub(_cut_key_material, text)
    return text if len(text) <= MAX_LINE_CHARACTERS else f"{text[:MAX_LINE_CHARACTERS]}..."


def _cut_key_material(match: re.Match[str]) -> str:
    words = _WORD.findall(match[0])
    return (
        _CUT
        if match[0].endswith("=") or not words or len("".join(words)) / len(words) < _SHORTEST_MEAN_WORD
        else match[0]
    )


def last_lines(lines: Iterable[str], count: int = 20) -> str:
    """Return the last lines that are not blank, scrubbed, as one text."""
    not_blank = [line for line in lines if line.strip()]
    return "\n".join(scrub(line) for line in not_blank[-count:])
