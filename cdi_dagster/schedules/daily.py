"""The daily schedule: at the due time, yesterday's storage day, if the coalescer is done with it."""

from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.clock import utc_now
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.days import storage_day_of
from cdi_dagster.core.launch_decision import LaunchAction, decide
from cdi_dagster.core.local_time import on_the_wall
from cdi_dagster.day_facts import read_day_facts
from cdi_dagster.ingestion.day_volumes import DayVolumes
from cdi_dagster.interfaces import CoalescerStatusSource
from cdi_dagster.run_records import run_request
from cdi_dagster.storage.roots import Roots


def daily_schedule(
    collection: Collection,
    *,
    calendar: DayCalendar,
    local_time_zone: str,
    running: bool,
    volumes: DayVolumes,
    clock: Callable[[], datetime] = utc_now,
) -> dg.ScheduleDefinition:
    """Return the schedule of one collection.

    Args:
        collection: what it launches.
        calendar: when a storage day is due.
        local_time_zone: in which the due time is shown beside UTC.
        running: whether it is on by default.
        volumes: the days' sizes, cached.
        clock: aware, UTC.
    """

    @dg.schedule(
        name=f"{collection.asset_name}_daily_schedule",
        job_name=names.daily_job_name(collection),
        cron_schedule=f"{calendar.due_time.minute} {calendar.due_time.hour} * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        description=f"Every day, Sundays too, at {calendar.due_time:%H:%M} UTC "
        f"({on_the_wall(calendar.due_time, local_time_zone)}): launches yesterday's storage day of {collection.id} "
        "if the coalescer is done with it. If it is not (on "
        "Sundays it starts later), or this tick is missed, the coalescer completion sensor launches the day later.",
        tags=names.collection_tag(collection),
    )
    def schedule(
        context: dg.ScheduleEvaluationContext,
        coalescer_status: dg.ResourceParam[CoalescerStatusSource],
        roots: dg.ResourceParam[Roots],
    ) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time.astimezone(UTC)
        storage_day = storage_day_of(tick.date())
        now = clock()
        if storage_day < calendar.first_storage_day:
            return dg.SkipReason(f"{storage_day} is before the first storage day, {calendar.first_storage_day}.")
        if not calendar.schedule_owns(storage_day, now):
            return dg.SkipReason(
                f"{storage_day}: this tick of {tick:%H:%M} UTC is evaluated late; the sensor launches the day."
            )
        facts = read_day_facts(
            context.instance,
            collection,
            [storage_day],
            coalescer_status=coalescer_status,
            roots=roots,
        )
        decision = decide(facts[0], now)
        if decision.action is LaunchAction.LAUNCH:
            return run_request(collection, storage_day, decision, launched_by="schedule")
        if decision.action is LaunchAction.DONE:
            return dg.SkipReason(f"{storage_day}: {decision.reason}")
        size = ""
        if facts[0].waits_for_coalescer:
            size = f" ({volumes.in_words(roots, collection.on(storage_day))})"
        return dg.SkipReason(f"{storage_day}: {decision.reason}{size}. The sensor launches it once that is over.")

    return schedule
