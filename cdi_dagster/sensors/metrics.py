"""The metrics sensor: at each tick it puts a heartbeat, and the figures of what was materialised since its last tick.

Its cursor is the last materialisation of each asset that was put; it is written after the tick, so that figures which
could not be put are put by the next one. The first tick puts none: what was before is history.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.clock import utc_now
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.days import due_at, parse_day
from cdi_dagster.core.metrics import Figure, heartbeat, lateness, step_figures
from cdi_dagster.interfaces import MetricsSink

INTERVAL_SECONDS = 30
"""Twice in the minute that an alarm counts."""
_MOST_OF_A_TICK = 50
"""Materialisations of one asset; a backfill's others follow in the next ticks."""


def metrics_sensor(
    collections: Iterable[Collection],
    *,
    calendar: DayCalendar,
    running: bool,
    clock: Callable[[], datetime] = utc_now,
) -> dg.SensorDefinition:
    """Return the sensor.

    Args:
        collections: with their tables.
        calendar: when days are due.
        running: whether it is on by default.
        clock: aware, UTC.
    """
    assets = [
        (collection, key)
        for collection in collections
        for key in (names.daily_records_key(collection), *names.table_keys(collection))
    ]

    @dg.sensor(
        name=names.METRICS_SENSOR,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description="Puts a heartbeat into the metrics (CDI_METRICS) at each tick, and records, rejects, bytes, "
        "seconds, cost, cluster time and lateness of the days that were published since. Where the heartbeat is "
        "missing, sensors do not run, and an alarm outside Dagster goes off.",
    )
    def sensor(context: dg.SensorEvaluationContext, metrics: dg.ResourceParam[MetricsSink]) -> dg.SkipReason:
        now = clock()
        cursor: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
        figures = [heartbeat(now)]
        for collection, key in assets:
            name = key.to_user_string()
            if name not in cursor:
                newest = context.instance.fetch_materializations(key, limit=1).records
                cursor[name] = newest[0].storage_id if newest else 0
                continue
            since = dg.AssetRecordsFilter(asset_key=key, after_storage_id=cursor[name])
            found = context.instance.fetch_materializations(since, limit=_MOST_OF_A_TICK, ascending=True).records
            for record in found:
                figures += _figures(collection, key, record, calendar, now)
                cursor[name] = record.storage_id
        metrics.put(figures)
        context.update_cursor(json.dumps(cursor))
        return dg.SkipReason(f"The heartbeat was put, and {len(figures) - 1} figures of materialisations.")

    return sensor


def _figures(
    collection: Collection, key: dg.AssetKey, record: dg.EventLogRecord, calendar: DayCalendar, now: datetime
) -> Iterator[Figure]:
    made = record.asset_materialization
    if made is None or made.partition is None:
        return
    storage_day, at = parse_day(made.partition), datetime.fromtimestamp(record.timestamp, UTC)
    values = {name: float(value.value) for name, value in made.metadata.items() if isinstance(value.value, int | float)}
    yield from step_figures(collection.id, key.path[-1], storage_day, values, at)
    # A day of a backfill is not late, however old it is.
    if key == names.daily_records_key(collection) and storage_day in calendar.due_days(now):
        yield lateness(collection.id, storage_day, due_at(storage_day, calendar.due_time), at)
