"""Which messages late days are: one for each cause with its days, a reminder a day, one when all of them are over.

Pure. A group is the days of one message; it is kept until the last of them is published. Why a day
is late, and sending, is `cdi_dagster.sensors.lateness`.
"""

from collections.abc import Collection as Sized
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from cdi_dagster.core.alert import REMIND_AFTER
from cdi_dagster.core.failures import FAILURE_GUIDE, AlertTiming, FailureClass

SETTLED_AFTER = timedelta(minutes=10)
"""A cause that comes after the message is sent once it has stayed for so long: a state may be unreadable for a tick."""
_MOST_DAYS = 100
_NO_RUN_ALERTS = frozenset(each for each, guide in FAILURE_GUIDE.items() if guide.alert_timing is AlertTiming.DAY_LATE)


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

    @property
    def needs_person(self) -> bool:
        """Whether more is to be done about it than to wait."""
        return not self.is_at_work and self.failure_class is not FailureClass.COALESCER_RUNNING


@dataclass(frozen=True, kw_only=True)
class LateGroup:
    """The days of one message.

    Attributes:
        days: all that it named, oldest first.
        open_days: those of them that are still late.
        sent_at: when the last message of them was sent; aware, UTC.
        causes: what the days waited for in the messages since the last reminder; none where all were at work.
        changed_at: since when a day is late for a cause that these messages do not state, and no run's alert does.
    """

    days: tuple[date, ...]
    open_days: tuple[date, ...]
    sent_at: datetime
    causes: tuple[FailureClass, ...] = ()
    changed_at: datetime | None = None

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
            "causes": list(self.causes),
            "changed_at": self.changed_at.isoformat() if self.changed_at else None,
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
        changed_at = value.get("changed_at")
        return cls(
            days=days,
            open_days=open_days,
            sent_at=datetime.fromisoformat(value["sent_at"]),
            causes=tuple(map(FailureClass, value.get("causes", []))),
            changed_at=datetime.fromisoformat(changed_at) if changed_at else None,
        )


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

    @property
    def leading(self) -> LateDay:
        """The day whose class and next step are the message's: the newest that needs a person, else the newest."""
        return sorted(self.late, key=lambda each: each.needs_person)[-1]


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
        group = LateGroup(days=named, open_days=named, sent_at=now, causes=_causes(days))
        steps.append(LateStep(before=None, after=group, late=tuple(days)))
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
        return LateStep(
            before=group, after=replace(after, sent_at=now, causes=_causes(late), changed_at=None), late=late
        )
    changed_at = (group.changed_at or now) if _is_news(group, late) else None
    if changed_at and now - changed_at >= SETTLED_AFTER:
        causes = tuple(sorted({*group.causes, *_causes(late)}))
        return LateStep(before=group, after=replace(after, sent_at=now, causes=causes, changed_at=None), late=late)
    return LateStep(before=group, after=replace(after, changed_at=changed_at))


def _causes(late: Sequence[LateDay]) -> tuple[FailureClass, ...]:
    return tuple(sorted({each.failure_class for each in late if each.failure_class and not each.is_at_work}))


def _is_news(group: LateGroup, late: Sequence[LateDay]) -> bool:
    """Whether a day is late for a cause that no message stated, and no run's alert will: the gate, or a run at work."""
    unstated = (set(_causes(late)) & _NO_RUN_ALERTS) - set(group.causes)
    # That it runs is good news, but where nothing was to be done because the day was being run.
    return bool(unstated - {FailureClass.COALESCER_RUNNING} if group.causes else unstated)
