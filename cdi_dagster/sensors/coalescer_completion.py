"""The coalescer completion sensor: launches what the schedule did not, once the gate is open; says what is late.

Late, missed, failed and re-coalesced days. Fetch (`day_facts`), decide (`core.decision`), translate.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import due_at, latest_due_storage_day, storage_day_of, storage_days_between
from cdi_dagster.core.decision import DayFacts, Decision, Verdict, decide, sensor_owns
from cdi_dagster.ingestion.day_volumes import DayVolumes
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.resources.interfaces import AlertSink, CoalescerStatusSource
from cdi_dagster.sensors.day_facts import days_to_run_again, read_day_facts
from cdi_dagster.sensors.lateness import LatenessReporter
from cdi_dagster.storage.interface import Storage, StorageError

LAUNCHES_PER_TICK = 3
"""A long outage is caught up oldest first, a few days at a time, so that the queue stays readable."""
INTERVAL_SECONDS = 30
"""So that a day is launched within a minute of its coalescer's end; a tick is some 30 small calls to storage."""


def utc_now() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)


def coalescer_completion_sensor(
    collection: Collection,
    *,
    first_storage_day: date,
    due_time: time,
    late_time: time,
    look_back_days: int,
    running: bool,
    volumes: DayVolumes,
    clock: Callable[[], datetime] = utc_now,
) -> dg.SensorDefinition:
    """Return the sensor of one collection.

    Args:
        collection: what it watches.
        first_storage_day: the first partition.
        due_time: when (UTC, on the export day) a storage day is due.
        late_time: when (UTC, on the export day) an unpublished day is late.
        look_back_days: how many due days it looks at.
        running: whether it is on by default.
        volumes: what it remembers of the days' sizes.
        clock: aware, UTC.
    """

    @dg.sensor(
        name=f"{collection.asset_name}_coalescer_completion_sensor",
        job_name=names.daily_job_name(collection),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description=f"Launches each due storage day of {collection.id} of the last {look_back_days} that is not "
        "published, or was coalesced again since, as soon as the coalescer is done with it; and again a day whose "
        "input changed under a run, or whose run was interrupted. The schedule has the first minute from "
        f"{due_time:%H:%M} UTC; this has everything from two minutes after it. A tick that "
        "launches nothing says, for each day, what it waits for, and why the "
        f"coalescer may be slow. A day that is not published by {late_time:%H:%M} UTC turns the check "
        f"{names.ON_TIME_CHECK} red and is told, once.",
        tags={"cdi/collection": collection.id.replace(":", ".")},
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        coalescer_status: dg.ResourceParam[CoalescerStatusSource],
        corporate_storage: dg.ResourceParam[Storage],
        published_storage: dg.ResourceParam[Storage],
        alerts: dg.ResourceParam[AlertSink],
        options: IngestOptions,
    ) -> dg.SensorResult:
        now = clock()
        days = _days_to_look_at(now, due_time, first_storage_day, look_back_days)
        again = days_to_run_again(context.instance, collection, since=now - timedelta(days=look_back_days))
        facts = read_day_facts(
            context.instance,
            collection,
            sorted({*days, *again}),
            coalescer_status=coalescer_status,
            corporate=corporate_storage,
            published=published_storage,
        )
        decisions = [(day, decide(day, now)) for day in facts]
        requests = [
            run_request(day.storage_day, decision, launched_by="sensor")
            for day, decision in decisions
            if decision.verdict is Verdict.LAUNCH
        ][:LAUNCHES_PER_TICK]

        def size_of(storage_day: date) -> str:
            return volumes.in_words(corporate_storage, published_storage, collection, storage_day)

        if first_storage_day <= storage_day_of(now.date()) and now < due_at(storage_day_of(now.date()), due_time):
            _keep_raw_volume(context, volumes, corporate_storage, published_storage, collection, now)
        reporter = LatenessReporter(collection, late_time, alerts, options, size_of, log=context.log.warning)
        # A day of a backfill long ago is not late while it is run again.
        dated = [(day, decision) for day, decision in decisions if day.storage_day in days or not day.is_unpublished]
        asset_events, cursor = reporter.report(dated, context.cursor, now)
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason(_what_it_waits_for(decisions, size_of)),
            asset_events=asset_events,
            cursor=cursor,
        )

    return sensor


def run_request(storage_day: date, decision: Decision, *, launched_by: str) -> dg.RunRequest:
    """Return the request that a LAUNCH decision stands for."""
    return dg.RunRequest(
        run_key=decision.run_key,
        partition_key=storage_day.isoformat(),
        tags={
            names.LAUNCH_TAG: decision.launch or "",
            names.ATTEMPT_TAG: str(decision.attempt),
            names.LAUNCHED_BY_TAG: launched_by,
            # This morning's day goes before the rest of a month that somebody backfills.
            names.PRIORITY_TAG: "10",
        },
    )


def first_day_looked_at(now: datetime, due_time: time, first_storage_day: date, look_back_days: int) -> date:
    """Return the oldest storage day that automation launches by itself."""
    return max(first_storage_day, latest_due_storage_day(now, due_time) - timedelta(days=look_back_days - 1))


def _days_to_look_at(now: datetime, due_time: time, first_storage_day: date, look_back_days: int) -> list[date]:
    """Return the due days of the look-back that are the sensor's, oldest first."""
    first = first_day_looked_at(now, due_time, first_storage_day, look_back_days)
    days = storage_days_between(first, latest_due_storage_day(now, due_time))
    return [day for day in days if sensor_owns(day, now, due_time)]


def _keep_raw_volume(
    context: dg.SensorEvaluationContext,
    volumes: DayVolumes,
    corporate: Storage,
    published: Storage,
    collection: Collection,
    now: datetime,
) -> None:
    """Before a day is due: keep what K2HB wrote, while it can still be seen."""
    try:
        volumes.keep_raw_volume(corporate, published, collection, storage_day_of(now.date()))
    except StorageError as error:
        context.log.warning(f"The size of {storage_day_of(now.date())} could not be kept: {error}")


def _what_it_waits_for(decisions: Sequence[tuple[DayFacts, Decision]], size_of: Callable[[date], str]) -> str:
    """Say it day by day; the youngest that waits for the coalescer with its size, which may be why."""
    if not decisions:
        return "No storage day is due yet."
    waiting = [day.storage_day for day, _ in decisions if day.waits_for_coalescer]
    open_questions = [
        f"{day.storage_day}: {decision.reason}"
        + (f" ({size_of(day.storage_day)})" if day.storage_day in waiting[-1:] else "")
        for day, decision in decisions
        if decision.verdict is not Verdict.DONE
    ]
    if open_questions:
        return "\n".join(open_questions)
    return f"Every due day from {decisions[0][0].storage_day} to {decisions[-1][0].storage_day} is published."
