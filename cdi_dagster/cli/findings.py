"""What a check of `cdi doctor` returns. No checks here."""

from dataclasses import dataclass
from enum import StrEnum


class CheckResult(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    """Not needed here, or not started: nothing is broken."""
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found, and the fix where it failed."""

    result: CheckResult
    text: str
    fix: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """Return what `--json` prints, under the keys that scripts read."""
        return {"verdict": self.result, "text": self.text, "mend": self.fix}


def ok(text: str) -> Finding:
    """Return a good finding."""
    return Finding(result=CheckResult.OK, text=text)


def note(text: str, fix: str | None = None) -> Finding:
    """Return one that breaks nothing."""
    return Finding(result=CheckResult.NOTE, text=text, fix=fix)


def failed(text: str, fix: str) -> Finding:
    """Return a bad one with its fix."""
    return Finding(result=CheckResult.FAILED, text=text, fix=fix)
