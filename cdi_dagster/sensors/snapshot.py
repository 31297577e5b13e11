"""The snapshot sensor: makes a snapshot once its days are there, again where it is stale; alerts where it is late.

Fetch (`day_facts`), decide (`core.snapshot_decision`), translate. There is no schedule beside it: a
snapshot has no time of its own, it follows its last day.
"""

import json
from collections.abc import Callable, Sequence
from datetime import date, datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.clock import utc_now
from cdi_dagster.core.alert import Alert, AlertLevel
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.days import parse_day, storage_day_of
from cdi_dagster.core.launch_decision import LaunchAction, LaunchDecision
from cdi_dagster.core.snapshot_decision import (
    SnapshotFacts,
    decide_snapshot,
    due_snapshots,
    leaves_tables,
    to_launch,
)
from cdi_dagster.day_facts import read_snapshot_facts
from cdi_dagster.interfaces import AlertSink
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.run_records import snapshot_run_request
from cdi_dagster.sensors.lateness import is_sent
from cdi_dagster.storage.roots import Roots

INTERVAL_SECONDS = 120
_Decided = tuple[SnapshotFacts, LaunchDecision]


def snapshot_sensor(
    collection: Collection, *, calendar: DayCalendar, running: bool, clock: Callable[[], datetime] = utc_now
) -> dg.SensorDefinition:
    """Return the sensor of one keyed collection.

    Args:
        collection: whose snapshots.
        calendar: when the last day of a snapshot is due, and late.
        running: whether it is on by default.
        clock: aware, UTC.
    """

    @dg.sensor(
        name=names.snapshot_sensor_name(collection),
        job_name=names.snapshot_job_name(collection),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description=f"Makes the snapshot of {collection.id} of each Friday of the last {calendar.look_back_days} days "
        "as soon as the daily rows of its days are there, once; again where rows of its days were published again "
        "since. A tick that launches nothing shows what each Friday waits for. A snapshot that is not there by "
        f"{calendar.late_time:%H:%M} UTC of its Friday sends one alert, and one when it is.",
        tags=names.collection_tag(collection),
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        roots: dg.ResourceParam[Roots],
        alerts: dg.ResourceParam[AlertSink],
        options: IngestOptions,
    ) -> dg.SensorResult:
        now = clock()
        due = due_snapshots(calendar, now)
        all_facts = read_snapshot_facts(
            context.instance, collection, due, published=roots.published, calendar=calendar, now=now
        )
        decisions = [(facts, decide_snapshot(facts, now)) for facts in all_facts]
        chosen = to_launch(decisions)
        lines = [f"{facts.export_day}: {decision.reason}" for facts, decision in decisions]
        late = _Lateness(collection, calendar, alerts, options, log=context.log.warning)
        return dg.SensorResult(
            run_requests=[_run_request(collection, *chosen, decisions)] if chosen else [],
            skip_reason=None if chosen else dg.SkipReason("\n".join(lines) or "No snapshot is due yet."),
            cursor=late.report(decisions, context.cursor, now),
        )

    return sensor


def _run_request(
    collection: Collection, facts: SnapshotFacts, decision: LaunchDecision, decisions: Sequence[_Decided]
) -> dg.RunRequest:
    is_older = leaves_tables(facts.export_day, (each for each, _ in decisions))
    return snapshot_run_request(collection, facts.export_day, decision, leaves_tables=is_older)


class _Lateness:
    """Sends one alert for each late snapshot, and one when it is there; which were sent is kept in the cursor.

    Where the first told nobody to act, as the snapshot was being made, another follows if it is left to a person.
    """

    def __init__(
        self,
        collection: Collection,
        calendar: DayCalendar,
        alerts: AlertSink,
        options: IngestOptions,
        *,
        log: Callable[[str], object],
    ) -> None:
        self._collection = collection
        self._calendar = calendar
        self._alerts = alerts
        self._options = options
        self._log = log

    def report(self, decisions: Sequence[_Decided], cursor: str | None, now: datetime) -> str:
        """Send what has to be sent; return the new cursor. What could not be sent is sent at the next tick."""
        before = _read(cursor)
        kept: dict[str, bool] = {}
        for facts, decision in decisions:
            was_for_person = before.get(facts.export_day)
            is_over = facts.unreadable is None and facts.is_published and not facts.missing_tables
            # A failed run that was alerted, by `failed_runs_sensor`, is reminded of and reported over by that.
            is_expected = facts.unreadable is None and not facts.is_alerted and self._is_late(facts.export_day, now)
            # A person published the tables of an older Friday, and they are about to be made from this one again.
            is_renewed = facts.set_back_at is not None and _is_at_work(facts, decision)
            is_late = is_expected and not is_over and not is_renewed
            is_left = decision.action is LaunchAction.LEAVE or bool(facts.missing_days)
            is_news = was_for_person is None or (is_left and not was_for_person)
            if is_late and is_news and self._sent(facts, decision):
                was_for_person = not _is_at_work(facts, decision)
            elif is_over and was_for_person is not None and self._sent(facts, decision, is_over=True):
                was_for_person = None
            if was_for_person is not None:
                kept[facts.export_day.isoformat()] = was_for_person
        return json.dumps(kept)

    def _is_late(self, export_day: date, now: datetime) -> bool:
        return self._calendar.is_late(storage_day_of(export_day), now)

    def _sent(self, facts: SnapshotFacts, decision: LaunchDecision, *, is_over: bool = False) -> bool:
        named = f"the snapshot of {self._collection.id} for {facts.export_day}"
        is_at_work = _is_at_work(facts, decision)
        is_left = decision.action is LaunchAction.LEAVE
        automatically = "nothing" if is_left else "it is made as soon as that allows it"
        what_happens = "It is being made." if is_at_work else f"Automatically: {automatically}."
        late_level = AlertLevel.WARNING if is_at_work else AlertLevel.ERROR
        failure_class = facts.runs[-1].failure_class if facts.runs else None
        alert = Alert(
            kind="LATE_OVER" if is_over else "LATE",
            key=f"{self._collection.id}|snapshot of {facts.export_day}",
            level=AlertLevel.INFORMATION if is_over else late_level,
            title=f"No longer late: {named}" if is_over else f"LATE: {named} is not published",
            text="Published." if is_over else f"{decision.reason.rstrip('.')}. {what_happens}",
            runbook=f"{self._options.runbook_url}#late",
            collection_id=self._collection.id,
            storage_days=(storage_day_of(facts.export_day),),
            failure_class=None if is_over else failure_class,
            next_step="Nothing, while it is being made." if is_at_work and not is_over else None,
        )
        return is_sent(self._alerts, alert, self._log)


def _is_at_work(facts: SnapshotFacts, decision: LaunchDecision) -> bool:
    return facts.is_live or decision.action is LaunchAction.LAUNCH


def _read(cursor: str | None) -> dict[date, bool]:
    """Return of which snapshots a message was sent, and whether it was for a person; none where the cursor is lost."""
    try:
        found = json.loads(cursor or "{}")
        # An earlier version kept a list of days, each with a message for a person.
        return {parse_day(day): bool(found[day]) if isinstance(found, dict) else True for day in found}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
