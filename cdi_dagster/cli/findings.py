"""What a check of `cdi doctor` finds. No checks here."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    NOTE = "note"
    """Not needed here, or not started: nothing is broken."""
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found, and the mend where it failed."""

    verdict: Verdict
    text: str
    mend: str | None = None


def ok(text: str) -> Finding:
    """Return a good finding."""
    return Finding(verdict=Verdict.OK, text=text)


def note(text: str, mend: str | None = None) -> Finding:
    """Return one that breaks nothing."""
    return Finding(verdict=Verdict.NOTE, text=text, mend=mend)


def failed(text: str, mend: str) -> Finding:
    """Return a bad one with its mend."""
    return Finding(verdict=Verdict.FAILED, text=text, mend=mend)
