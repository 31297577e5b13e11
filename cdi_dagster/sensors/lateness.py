"""Reporting that a day is late, once: the check turns red, the asset gets an observation, on call gets an alert.

The days that were reported are kept in the sensor's cursor. Where the cursor is lost, they are reported once more; an
alert that could not be sent is sent at the next tick.
"""

import json
from collections.abc import Callable, Sequence, Set
from datetime import datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.alert import Alert
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass
from cdi_dagster.core.gate import class_of
from cdi_dagster.core.launch_decision import DayFacts, LaunchAction, LaunchDecision, RunState
from cdi_dagster.interfaces import AlertSink
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.sensors.check_states import LATE_DAYS, CheckState

AssetEvent = dg.AssetObservation | dg.AssetCheckEvaluation | dg.AssetMaterialization


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
    ) -> tuple[list[AssetEvent], str]:
        """Return what the tick reports, and the cursor that holds the reported days."""
        reported = set(_read(cursor))
        late = self._late(decisions, reported, now)
        still_late = {day.storage_day.isoformat() for day, _ in late}
        looked_at = {day.storage_day.isoformat() for day, _ in decisions if not day.unreadable}
        events: list[AssetEvent] = []
        for day, decision in late:
            if day.storage_day.isoformat() not in reported and self._send(self._alert(day, decision, "LATE")):
                reported.add(day.storage_day.isoformat())
                events.append(self._observation(day, decision))
        over = sorted((reported & looked_at) - still_late)
        for day, decision in decisions:
            if day.storage_day.isoformat() in over and self._send(self._alert(day, decision, "LATE_OVER")):
                reported.discard(day.storage_day.isoformat())
        # A day that has left the look-back unpublished stays reported: it must not be reported again.
        return events, json.dumps({"told_late": sorted(reported)[-100:]})

    def on_time_state(
        self, decisions: Sequence[tuple[DayFacts, LaunchDecision]], cursor: str | None, now: datetime
    ) -> CheckState | None:
        """Return what the on-time check has to show; None where that is not known, or no day is due yet."""
        if not decisions or any(day.unreadable for day, _ in decisions):
            return None
        late = self._late(decisions, set(_read(cursor)), now)
        days = ", ".join(day.storage_day.isoformat() for day, _ in late)
        newest = (late or decisions)[-1][0].storage_day.isoformat()

        def evaluate() -> dg.AssetCheckEvaluation:
            return dg.AssetCheckEvaluation(
                asset_key=names.daily_records_key(self._collection),
                check_name=names.ON_TIME_CHECK,
                passed=not late,
                severity=dg.AssetCheckSeverity.ERROR,
                description=f"Late: {days}. {newest}: {late[-1][1].reason}" if late else None,
                metadata={"late_days": len(late), names.CHECKED_DAY: newest, LATE_DAYS: days},
            )

        return CheckState(name=names.ON_TIME_CHECK, identity=(newest, None, days), evaluate=evaluate)

    def _late(
        self, decisions: Sequence[tuple[DayFacts, LaunchDecision]], reported: Set[str], now: datetime
    ) -> list[tuple[DayFacts, LaunchDecision]]:
        return [
            (day, decision)
            for day, decision in decisions
            if day.is_unpublished
            and self._calendar.is_late(day.storage_day, now)
            and (day.storage_day.isoformat() in reported or not self._is_renewed(day, decision))
        ]

    def _is_renewed(self, day: DayFacts, decision: LaunchDecision) -> bool:
        """Whether a day that was published in time was ingested again, and a run is about to renew its tables."""
        published_at = day.published_from.published_at if day.published_from else None
        is_again = published_at is not None and self._calendar.is_late(day.storage_day, published_at)
        is_at_work = decision.action is LaunchAction.LAUNCH or any(run.state is RunState.LIVE for run in day.runs)
        return day.lacks_tables and is_again and is_at_work

    def _send(self, alert: Alert) -> bool:
        try:
            self._alerts.send(alert)
        except Exception as error:  # noqa: BLE001 - an alert that fails must not stop the launches of this tick
            self._log(f"{alert.title}: the alert could not be sent, the next tick retries: {error}")
            return False
        return True

    def _alert(self, day: DayFacts, decision: LaunchDecision, kind: str) -> Alert:
        what = str(self._collection.on(day.storage_day))
        if kind == "LATE":
            title = f"LATE: {what} is not published at {self._calendar.late_time:%H:%M} UTC"
            text = f"{decision.reason}. {self._size_of(day.storage_day)}."
        else:
            title, text = f"No longer late: {what}", f"{decision.reason}."
        failure_class = _why_late(day) if kind == "LATE" else None
        return Alert(
            kind=kind,
            title=title,
            text=text,
            collection_id=self._collection.id,
            storage_days=(day.storage_day,),
            runbook=f"{self._options.runbook_url}#late",
            failure_class=failure_class,
            owner=FAILURE_GUIDE[failure_class].owner if failure_class else None,
            next_step=day.coalescer.next_step or FAILURE_GUIDE[failure_class].next_step if failure_class else None,
        )

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


def _why_late(day: DayFacts) -> FailureClass | None:
    """Return the class of what a late day waits for: the closed gate, its tables, or its last run's failure."""
    if day.lacks_tables and day.coalescer.is_open:
        return FailureClass.TABLES_MISSING
    return class_of(day.coalescer) or (day.runs[-1].failure_class if day.runs else None)


def _read(cursor: str | None) -> list[str]:
    try:
        return list(json.loads(cursor or "{}").get("told_late", []))
    except (ValueError, AttributeError):
        return []
