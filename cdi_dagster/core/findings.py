"""What a check of `cdi doctor` returns, here and on a cluster. No checks here."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class CheckResult(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    """Not needed here, not started, or not checked: nothing is broken."""
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found, and the fix where it failed."""

    result: CheckResult
    text: str
    fix: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """Return what `--json` prints, under the keys that scripts read; `from_json` reads it back."""
        return {"result": self.result, "text": self.text, "fix": self.fix}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Finding":
        """Read what `to_json` wrote."""
        return cls(result=CheckResult(value["result"]), text=value["text"], fix=value["fix"])


def ok(text: str) -> Finding:
    """Return a good finding."""
    return Finding(result=CheckResult.OK, text=text)


def note(text: str, fix: str | None = None) -> Finding:
    """Return one that breaks nothing."""
    return Finding(result=CheckResult.NOTE, text=text, fix=fix)


def failed(text: str, fix: str) -> Finding:
    """Return a bad one with its fix."""
    return Finding(result=CheckResult.FAILED, text=text, fix=fix)
