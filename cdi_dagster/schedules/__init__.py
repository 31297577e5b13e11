"""The daily schedules: they launch a day at its due time."""

from collections.abc import Iterable

import dagster as dg

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.ingestion.day_volumes import DayVolumes
from cdi_dagster.schedules.daily import daily_schedule


def build_schedules(
    collections: Iterable[Collection],
    *,
    calendar: DayCalendar,
    local_time_zone: str,
    running: bool,
    volumes: DayVolumes,
) -> list[dg.ScheduleDefinition]:
    """Return the daily schedule of every collection."""
    return [
        daily_schedule(
            collection,
            calendar=calendar,
            local_time_zone=local_time_zone,
            running=running,
            volumes=volumes,
        )
        for collection in collections
    ]
