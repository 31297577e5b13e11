"""Which messages late days are: one for each cause with its days, a reminder a day, one when all of them are over.

Pure. A group is the days of one message; it is kept until the last of them is published. Why a day
is late, and sending, is `cdi_dagster.sensors.lateness`.
"""

from collections.abc import Collection as Sized
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from cdi_dagster.core.alert import REMIND_AFTER
from cdi_dagster.core.failures import FailureClass

_MOST_DAYS = 100


@dataclass(frozen=True, kw_only=True)
class LateDay:
    """A storage day that is late.

    Attributes:
        storage_day: the partition.
        reason: what it waits for.
        failure_class: of that, where it has one.
        is_at_work: whether it is being run now, or about to be: nobody has to do anything.
        is_left: whether automation does nothing about it any more.
    """

    storage_day: date
    reason: str
    failure_class: FailureClass | None = None
    is_at_work: bool = False
    is_left: bool = False

    @property
    def cause(self) -> tuple[FailureClass | None, bool]:
        """What days of one message have in common; of days at work no more than that."""
        return (None if self.is_at_work else self.failure_class, self.is_at_work)


@dataclass(frozen=True, kw_only=True)
class LateGroup:
    """The days of one message.

    Attributes:
        days: all that it named, oldest first.
        open_days: those of them that are still late.
        sent_at: when the last message of them was sent; aware, UTC.
    """

    days: tuple[date, ...]
    open_days: tuple[date, ...]
    sent_at: datetime

    @property
    def key(self) -> str:
        """The same for every message about the group: its first day, as a day is open in one group only."""
        return f"late since {self.days[0]}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; `from_json` reads it back."""
        return {
            "days": [str(day) for day in self.days],
            "open_days": [str(day) for day in self.open_days],
            "sent_at": self.sent_at.isoformat(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LateGroup":
        """Read what `to_json` wrote.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: it is something else.
        """
        days, open_days = (tuple(map(date.fromisoformat, value[name])) for name in ("days", "open_days"))
        if not days:
            raise ValueError("a group without days")
        return cls(days=days, open_days=open_days, sent_at=datetime.fromisoformat(value["sent_at"]))


@dataclass(frozen=True, kw_only=True)
class LateStep:
    """What happens to one group in a tick: kept as `after` once its message is sent, as `before` where it is not.

    Attributes:
        before: as it was; None for a new one.
        after: as it will be; None once it is over.
        late: the days of a message that they are late; none where no such message is sent.
        is_over: whether the message is sent that none of the days is late any more.
    """

    before: LateGroup | None
    after: LateGroup | None
    late: tuple[LateDay, ...] = ()
    is_over: bool = False


def decide_late(
    late: Sequence[LateDay], groups: Sequence[LateGroup], looked_at: Sized[date], first_day: date, now: datetime
) -> list[LateStep]:
    """Return what happens to each group, and the new ones.

    Args:
        late: the days that are late now, oldest first.
        groups: kept by the tick before.
        looked_at: the days whose state is known now.
        first_day: the oldest that automation looks at; an older one is dropped, for nothing is known of it any more.
        now: aware, UTC.
    """
    known = {day for group in groups for day in group.open_days}
    fresh: dict[Any, list[LateDay]] = {}
    for each in late:
        if each.storage_day not in known:
            fresh.setdefault(each.cause, []).append(each)
    by_day = {each.storage_day: each for each in late}
    steps = [_step(group, by_day, fresh, looked_at, first_day, now) for group in groups]
    for days in fresh.values():
        named = tuple(each.storage_day for each in days)
        steps.append(LateStep(before=None, after=LateGroup(days=named, open_days=named, sent_at=now), late=tuple(days)))
    return steps


def _step(
    group: LateGroup,
    by_day: Mapping[date, LateDay],
    fresh: dict[Any, list[LateDay]],
    looked_at: Sized[date],
    first_day: date,
    now: datetime,
) -> LateStep:
    still = [by_day[day] for day in group.open_days if day in by_day]
    unknown = [day for day in group.open_days if day not in looked_at and day not in by_day and day >= first_day]
    # A day that is late by the same cause joins, and the message names all of them.
    joined = [each for cause in {each.cause for each in still} for each in fresh.pop(cause, [])]
    late = tuple(sorted([*still, *joined], key=lambda each: each.storage_day))
    open_days = tuple(sorted([*(each.storage_day for each in late), *unknown]))
    if not open_days:
        return LateStep(before=group, after=None, is_over=any(day in looked_at for day in group.open_days))
    days = tuple(sorted({*group.days, *open_days}))[-_MOST_DAYS:]
    # The key is the first day's: it stays although an older one joins.
    days = (group.days[0], *(day for day in days if day != group.days[0]))
    after = replace(group, days=days, open_days=open_days)
    if joined or (late and now - group.sent_at >= REMIND_AFTER):
        return LateStep(before=group, after=replace(after, sent_at=now), late=late)
    return LateStep(before=group, after=after)
