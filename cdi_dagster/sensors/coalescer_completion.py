"""The sensor that launches what the schedule did not: late, missed and re-coalesced days, once the gate is open."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import latest_due_storage_day, storage_days_between
from cdi_dagster.core.decision import Decision, Verdict, decide, sensor_owns
from cdi_dagster.resources.interfaces import CoalescerStatusSource
from cdi_dagster.sensors.day_facts import read_day_facts
from cdi_dagster.storage.interface import Storage

LAUNCHES_PER_TICK = 3
"""A long outage is caught up oldest first, a few days at a time, so that the queue stays readable."""


def utc_now() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)


def coalescer_completion_sensor(
    collection: Collection,
    *,
    first_storage_day: date,
    due_time: time,
    look_back_days: int,
    running: bool,
    clock: Callable[[], datetime] = utc_now,
) -> dg.SensorDefinition:
    """Return the sensor of one collection.

    Args:
        collection: what it watches.
        first_storage_day: the first partition.
        due_time: when (UTC, on the export day) a storage day is due.
        look_back_days: how many due days it looks at.
        running: whether it is on by default.
        clock: aware, UTC.
    """

    @dg.sensor(
        name=f"{collection.asset_name}_coalescer_completion_sensor",
        job_name=names.daily_job_name(collection),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description=f"Launches each due storage day of `{collection.id}` of the last {look_back_days} that is not "
        "published, or was coalesced again since, as soon as the coalescer is done with it. The schedule has the first "
        f"minute from {due_time:%H:%M} UTC; this has everything from two minutes after it. A tick that launches "
        "nothing says, for each day, what it waits for.",
        tags={"cdi/collection": collection.id.replace(":", ".")},
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        coalescer_status: dg.ResourceParam[CoalescerStatusSource],
        published_storage: dg.ResourceParam[Storage],
    ) -> dg.SensorResult | dg.SkipReason:
        now = clock()
        days = _days_to_look_at(now, due_time, first_storage_day, look_back_days)
        facts = read_day_facts(
            context.instance, collection, days, coalescer_status=coalescer_status, published=published_storage
        )
        decisions = [(day.storage_day, decide(day, now)) for day in facts]
        requests = [
            run_request(storage_day, decision, launched_by="sensor")
            for storage_day, decision in decisions
            if decision.verdict is Verdict.LAUNCH
        ]
        if requests:
            return dg.SensorResult(run_requests=requests[:LAUNCHES_PER_TICK])
        return dg.SkipReason(_what_it_waits_for(decisions))

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
        },
    )


def _days_to_look_at(now: datetime, due_time: time, first_storage_day: date, look_back_days: int) -> list[date]:
    """Return the due days of the look-back that are the sensor's, oldest first."""
    last = latest_due_storage_day(now, due_time)
    first = max(first_storage_day, last - timedelta(days=look_back_days - 1))
    return [day for day in storage_days_between(first, last) if sensor_owns(day, now, due_time)]


def _what_it_waits_for(decisions: list[tuple[date, Decision]]) -> str:
    open_questions = [f"{day}: {decision.reason}" for day, decision in decisions if decision.verdict != Verdict.DONE]
    if open_questions:
        return "\n".join(open_questions)
    if not decisions:
        return "No storage day is due yet."
    return f"Every due day from {decisions[0][0]} to {decisions[-1][0]} is published."
