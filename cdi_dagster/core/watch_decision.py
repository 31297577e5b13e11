"""Whether `cdi watch` sends an alert: one for what is new, a reminder a day, and one when all is well again. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from cdi_dagster.core.alert import REMIND_AFTER


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is not as it should be, in one line.

    Attributes:
        text: what is wrong, now.
        keys: of what the line is about, each the same for as long as it is wrong: a day, the daemon.
    """

    text: str
    keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class WatchState:
    """What was alerted, kept from one run of `cdi watch` to the next.

    Attributes:
        alerted: keys of the problems that an alert was sent of, and that are still there.
        alerted_at: when the last alert of them was sent.
    """

    alerted: frozenset[str] = frozenset()
    alerted_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; `from_json` reads it back."""
        return {
            "alerted": sorted(self.alerted),
            "alerted_at": self.alerted_at.isoformat() if self.alerted_at else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "WatchState":
        """Read what `to_json` wrote.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: it is something else.
        """
        at = value["alerted_at"]
        return cls(alerted=frozenset(value["alerted"]), alerted_at=datetime.fromisoformat(at) if at else None)


class WatchAction(StrEnum):
    """What `cdi watch --alert` sends."""

    ALERT = "ALERT"
    RECOVERED = "RECOVERED"
    NOTHING = "NOTHING"


def decide_watch(problems: Sequence[Problem], state: WatchState, now: datetime) -> tuple[WatchAction, WatchState]:
    """Return what is sent, and the state to keep once it has been sent.

    Args:
        problems: all that is wrong now.
        state: kept by the run before.
        now: aware, UTC.
    """
    found = frozenset(key for problem in problems for key in problem.keys)
    if not found:
        return (WatchAction.RECOVERED if state.alerted else WatchAction.NOTHING), WatchState()
    is_due = state.alerted_at is None or now - state.alerted_at >= REMIND_AFTER
    if found <= state.alerted and not is_due:
        return WatchAction.NOTHING, WatchState(alerted=found, alerted_at=state.alerted_at)
    return WatchAction.ALERT, WatchState(alerted=found, alerted_at=now)
