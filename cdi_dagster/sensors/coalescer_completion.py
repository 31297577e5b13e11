"""The coalescer completion sensor: launches what the schedule did not, once the gate is open; reports what is late.

Late, missed, failed and re-coalesced days, and days whose tables are missing. Fetch (`day_facts`), decide
(`core.launch_decision`), translate.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.clock import utc_now
from cdi_dagster.core.automation import in_turn
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.launch_decision import DayFacts, LaunchAction, LaunchDecision, decide
from cdi_dagster.day_facts import read_day_facts
from cdi_dagster.ingestion.day_volumes import DayVolumes
from cdi_dagster.interfaces import AlertSink, CoalescerStatusSource
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.run_records import AS_A_BACKFILL, BEFORE_BACKFILLS, days_to_run_again, run_request
from cdi_dagster.sensors.check_states import CheckState, evaluations_to_report, newest_states
from cdi_dagster.sensors.lateness import LatenessReporter
from cdi_dagster.storage.interface import StorageError
from cdi_dagster.storage.roots import Roots

LAUNCHES_PER_TICK = 3
"""After a long outage days are launched oldest first, a few at a time, so that the queue stays readable; and as many
of the days before the look-back, which come after them."""
OLD_DAYS_PER_TICK = 20
"""Of a refused backfill of a year each tick looks at so many days, in turn."""
INTERVAL_SECONDS = 30
"""So that a day is launched within a minute of its coalescer's end; a tick makes some 30 small requests to storage."""


def coalescer_completion_sensor(
    collection: Collection,
    *,
    calendar: DayCalendar,
    running: bool,
    volumes: DayVolumes,
    clock: Callable[[], datetime] = utc_now,
) -> dg.SensorDefinition:
    """Return the sensor of one collection.

    Args:
        collection: what it watches.
        calendar: which days it looks at, and when they are due and late.
        running: whether it is on by default.
        volumes: the days' sizes, cached.
        clock: aware, UTC.
    """

    @dg.sensor(
        name=names.completion_sensor_name(collection),
        job_name=names.daily_job_name(collection),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description=f"Launches each due storage day of {collection.id} of the last {calendar.look_back_days} that is "
        "not published, or was coalesced again since, as soon as the coalescer is done with it; its tables alone where "
        "only they are missing; and a day of any age whose recent run was refused by the gate, was interrupted, or "
        "found its input changed or lacking. The schedule launches in the first minute "
        f"from {calendar.due_time:%H:%M} UTC; the sensor from two minutes after it. A tick that launches nothing "
        "shows, for each day, what it waits for, and why the coalescer may be slow. A day that is not published by "
        f"{calendar.late_time:%H:%M} UTC turns the check "
        f"{names.ON_TIME_CHECK} red and sends one alert.",
        tags={"cdi/collection": collection.id.replace(":", ".")},
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        coalescer_status: dg.ResourceParam[CoalescerStatusSource],
        roots: dg.ResourceParam[Roots],
        alerts: dg.ResourceParam[AlertSink],
        options: IngestOptions,
    ) -> dg.SensorResult:
        now = clock()
        days = calendar.sensor_days(now)
        old = [
            day
            for day in days_to_run_again(context.instance, collection, since=now - calendar.look_back)
            if day not in days and day >= calendar.first_storage_day  # no partition, and Dagster would refuse them all
        ]
        again = in_turn(old, OLD_DAYS_PER_TICK, turn=int(now.timestamp()) // INTERVAL_SECONDS)
        facts = read_day_facts(
            context.instance,
            collection,
            sorted([*days, *again]),
            coalescer_status=coalescer_status,
            roots=roots,
        )
        decisions = [(day, decide(day, now)) for day in facts]
        launches = [(day.storage_day, todo) for day, todo in decisions if todo.action is LaunchAction.LAUNCH]
        requests = [
            run_request(collection, day, decision, launched_by="sensor", priority=priority)
            for group, priority in ((days, BEFORE_BACKFILLS), (again, AS_A_BACKFILL))
            for day, decision in [launch for launch in launches if launch[0] in group][:LAUNCHES_PER_TICK]
        ]

        def size_of(storage_day: date) -> str:
            return volumes.in_words(roots, collection.on(storage_day))

        not_yet_due = calendar.day_before_due(now)
        if not_yet_due:
            _keep_raw_volume(context, volumes, roots, collection.on(not_yet_due))
        reporter = LatenessReporter(collection, calendar, alerts, options, size_of, log=context.log.warning)
        # A day before the look-back is not late while its backfill is retried.
        dated = [(day, decision) for day, decision in decisions if day.storage_day in days or not day.is_unpublished]
        on_time = reporter.on_time_state(dated, context.cursor, now)
        observations, cursor = reporter.report(dated, context.cursor, now)
        states = newest_states(collection, roots.published, [day for day, _ in dated])
        evaluations = _evaluations(context, collection, [*([on_time] if on_time else []), *states])
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason(_what_it_waits_for(decisions, size_of)),
            asset_events=[*observations, *evaluations],
            cursor=cursor,
        )

    return sensor


def _evaluations(
    context: dg.SensorEvaluationContext, collection: Collection, states: Sequence[CheckState]
) -> list[dg.AssetCheckEvaluation]:
    try:
        return evaluations_to_report(context.instance, collection, states)
    except StorageError as error:
        context.log.warning(f"The checks of {collection.id} could not be reported, the next tick retries: {error}")
        return []


def _keep_raw_volume(
    context: dg.SensorEvaluationContext, volumes: DayVolumes, roots: Roots, day: CollectionDay
) -> None:
    """Keep the size of what K2HB wrote before the day is due, while it can still be read."""
    try:
        volumes.keep_raw_volume(roots, day)
    except StorageError as error:
        context.log.warning(f"The size of {day} could not be kept: {error}")


def _what_it_waits_for(decisions: Sequence[tuple[DayFacts, LaunchDecision]], size_of: Callable[[date], str]) -> str:
    """Return a line for each day; the latest that waits for the coalescer with its size, which may be why."""
    if not decisions:
        return "No storage day is due yet."
    waiting = [day.storage_day for day, _ in decisions if day.waits_for_coalescer]
    open_questions = [
        f"{day.storage_day}: {decision.reason}"
        + (f" ({size_of(day.storage_day)})" if day.storage_day in waiting[-1:] else "")
        for day, decision in decisions
        if decision.action is not LaunchAction.DONE
    ]
    if open_questions:
        return "\n".join(open_questions)
    return f"Every due day from {decisions[0][0].storage_day} to {decisions[-1][0].storage_day} is published."
