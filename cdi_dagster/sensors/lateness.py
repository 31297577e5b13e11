"""Reporting that days are late: one alert for each cause, an observation for each day, and the state of the check.

Which messages there are is `core.late_messages`. What was sent is kept in the sensor's cursor, which is written after
the tick: where the process ends in between, or the cursor is lost, a message is sent once more; one that could not be
sent is sent at the next tick.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.alert import Alert, AlertLevel
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.days import storage_days_text
from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass
from cdi_dagster.core.gate import class_of
from cdi_dagster.core.late_messages import LateDay, LateGroup, LateStep, decide_late
from cdi_dagster.core.launch_decision import DayFacts, LaunchAction, LaunchDecision, RunState, last_but_duplicates
from cdi_dagster.interfaces import AlertSink
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.sensors.check_states import DECIDED, LATE_DAYS, CheckState

_AT_WORK = "It is being run now: there is nothing to do."
_AT_WORK_ALL = "They are being run now, oldest first: there is nothing to do."
_GROUPS = "late"


class LatenessReporter:
    """Reports the late days of one collection in one tick.

    Args:
        collection: whose days.
        calendar: when an unpublished day is late.
        alerts: where alerts go.
        options: for the runbook link.
        size_of: returns a day's size compared with usual.
        log: logs that an alert could not be sent.
    """

    def __init__(
        self,
        collection: Collection,
        calendar: DayCalendar,
        alerts: AlertSink,
        options: IngestOptions,
        size_of: Callable[..., str],
        *,
        log: Callable[[str], object],
    ) -> None:
        self._collection = collection
        self._calendar = calendar
        self._alerts = alerts
        self._options = options
        self._size_of = size_of
        self._log = log

    def report(
        self, decisions: Sequence[tuple[DayFacts, LaunchDecision]], cursor: str | None, now: datetime
    ) -> tuple[list[dg.AssetObservation], str]:
        """Send what has to be sent; return an observation of each day that is newly late, and the new cursor."""
        groups = _read(cursor)
        late = self._late(decisions, groups, now)
        looked_at = {day.storage_day for day, _ in decisions if not day.unreadable}
        steps = decide_late(
            [_late_day(day, decision) for day, decision in late],
            groups,
            looked_at,
            self._calendar.first_due_day(now),
            now,
        )
        by_day = {day.storage_day: (day, decision) for day, decision in late}
        reported = {day for group in groups for day in group.open_days}
        observations: list[dg.AssetObservation] = []
        kept: list[LateGroup] = []
        for step in steps:
            after = step.after
            if step.late or step.is_over:
                if is_sent(self._alerts, self._alert(step, by_day), self._log):
                    new = [each.storage_day for each in step.late if each.storage_day not in reported]
                    observations += [self._observation(*by_day[day]) for day in new]
                else:
                    after = step.before
            if after:
                kept.append(after)
        return observations, json.dumps({_GROUPS: [group.to_json() for group in kept]})

    def on_time_state(
        self, decisions: Sequence[tuple[DayFacts, LaunchDecision]], cursor: str | None, now: datetime
    ) -> CheckState | None:
        """Return what the on-time check has to show; None where that is not known, or no day is due yet."""
        if not decisions or any(day.unreadable for day, _ in decisions):
            return None
        late = self._late(decisions, _read(cursor), now)
        days = ", ".join(day.storage_day.isoformat() for day, _ in late)
        newest_day, decision = (late or decisions)[-1]
        newest, reason = newest_day.storage_day.isoformat(), f"{newest_day.storage_day}: {decision.reason}"
        # Not the reason itself, which may state seconds: each tick would report another.
        waits = f"{decision.action} {_why_late(newest_day) or ''}".strip()

        def evaluate() -> dg.AssetCheckEvaluation:
            return dg.AssetCheckEvaluation(
                asset_key=names.daily_records_key(self._collection),
                check_name=names.ON_TIME_CHECK,
                passed=not late,
                severity=dg.AssetCheckSeverity.ERROR,
                description=f"Late: {days}. {reason}" if late else reason,
                metadata={"late_days": len(late), names.CHECKED_DAY: newest, LATE_DAYS: days, DECIDED: waits},
            )

        return CheckState(name=names.ON_TIME_CHECK, identity=(newest, None, days, waits), evaluate=evaluate)

    def _late(
        self, decisions: Sequence[tuple[DayFacts, LaunchDecision]], groups: Sequence[LateGroup], now: datetime
    ) -> list[tuple[DayFacts, LaunchDecision]]:
        reported = {day for group in groups for day in group.open_days}
        return [
            (day, decision)
            for day, decision in decisions
            if day.is_unpublished
            and self._calendar.is_late(day.storage_day, now)
            and (day.storage_day in reported or not self._is_renewed(day, decision))
        ]

    def _is_renewed(self, day: DayFacts, decision: LaunchDecision) -> bool:
        """Whether a day that was published in time was ingested again, and a run is about to renew its tables."""
        published_at = day.published_from.published_at if day.published_from else None
        is_again = published_at is not None and self._calendar.is_late(day.storage_day, published_at)
        return day.lacks_tables and is_again and _is_at_work(day, decision)

    def _alert(self, step: LateStep, by_day: Mapping[date, tuple[DayFacts, LaunchDecision]]) -> Alert:
        runbook = f"{self._options.runbook_url}#late"
        if step.before and step.is_over:
            days = tuple(sorted(step.before.days))
            title = f"No longer late: {self._named(days).removesuffix(',')}"
            text = f"Published: {', '.join(map(str, days))}."
            return Alert(
                kind="LATE_OVER",
                key=f"{self._collection.id}|{step.before.key}",
                level=AlertLevel.INFORMATION,
                title=title,
                text=text,
                runbook=runbook,
                collection_id=self._collection.id,
                storage_days=days,
            )
        days = tuple(each.storage_day for each in step.late)
        leading = by_day[step.leading.storage_day][0]
        failure_class = step.leading.failure_class
        of_day = leading.damaged.next_step if leading.damaged else leading.coalescer.next_step
        next_step = of_day or FAILURE_GUIDE[failure_class].next_step if failure_class else None
        at_work = all(each.is_at_work for each in step.late)
        is_are = "is" if len(days) == 1 else "are"
        return Alert(
            kind="LATE",
            key=f"{self._collection.id}|{step.after.key if step.after else ''}",
            level=AlertLevel.WARNING if at_work else AlertLevel.ERROR,
            title=f"LATE: {self._named(days)} {is_are} not published at {self._calendar.late_time:%H:%M} UTC",
            text=self._text(step.late, at_work=at_work),
            runbook=runbook,
            collection_id=self._collection.id,
            storage_days=days,
            failure_class=failure_class,
            owner=FAILURE_GUIDE[failure_class].owner if failure_class else None,
            next_step="Nothing, while it is being run." if at_work else next_step,
        )

    def _named(self, days: Sequence[date]) -> str:
        if len(days) == 1:
            return str(self._collection.on(days[0]))
        return f"{self._collection.id}, {storage_days_text(days)},"

    def _text(self, late: Sequence[LateDay], *, at_work: bool) -> str:
        if len(late) == 1:
            size = self._size_of(late[0].storage_day)
            return f"{late[0].reason.rstrip('.')}. {size}. {_AT_WORK if at_work else _automatically(late[0])}"
        lines = [
            f"{each.storage_day}: {each.reason.rstrip('.')}.{'' if each.is_at_work else f' {_automatically(each)}'}"
            for each in late
        ]
        newest = f"The newest: {self._size_of(late[-1].storage_day)}."
        return "\n".join([*([_AT_WORK_ALL] if at_work else []), *lines, newest])

    def _observation(self, day: DayFacts, decision: LaunchDecision) -> dg.AssetObservation:
        return dg.AssetObservation(
            asset_key=names.daily_records_key(self._collection),
            partition=day.storage_day.isoformat(),
            description=f"LATE: not published at {self._calendar.late_time:%H:%M} UTC. {decision.reason}",
            metadata={
                "late": True,
                "reason": decision.reason,
                "coalescer_state": str(day.coalescer.state),
                "size_against_the_usual": self._size_of(day.storage_day),
                "runbook": f"{self._options.runbook_url}#late",
            },
        )


def is_sent(alerts: AlertSink, alert: Alert, log: Callable[[str], object]) -> bool:
    """Send an alert and return whether that succeeded: it must not stop the launches of its tick."""
    try:
        alerts.send(alert)
    except Exception as error:  # noqa: BLE001 - whatever it is, the next tick retries
        log(f"{alert.title}: the alert could not be sent, the next tick retries: {error}")
        return False
    return True


def _late_day(day: DayFacts, decision: LaunchDecision) -> LateDay:
    return LateDay(
        storage_day=day.storage_day,
        reason=decision.reason,
        failure_class=_why_late(day),
        is_at_work=_is_at_work(day, decision),
        is_left=decision.action is LaunchAction.LEAVE,
    )


def _automatically(late: LateDay) -> str:
    return f"Automatically: {'nothing' if late.is_left else 'it is launched as soon as that allows it'}."


def _is_at_work(day: DayFacts, decision: LaunchDecision) -> bool:
    return decision.action is LaunchAction.LAUNCH or any(run.state is RunState.LIVE for run in day.runs)


def _why_late(day: DayFacts) -> FailureClass | None:
    """Return the class of what a late day waits for: its mark, the gate, its tables, or its last run's failure."""
    if day.damaged:
        return day.damaged.failure_class
    if day.lacks_tables and day.coalescer.is_open:
        return FailureClass.TABLES_MISSING
    last = last_but_duplicates(day.runs)
    return class_of(day.coalescer) or (last.failure_class if last else None)


def _read(cursor: str | None) -> list[LateGroup]:
    """Return the groups of a cursor; none where it is lost, or something else."""
    try:
        return [LateGroup.from_json(group) for group in json.loads(cursor or "{}").get(_GROUPS, [])]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []
