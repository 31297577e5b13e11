"""When a day is asked for late, missed or again."""

from collections.abc import Iterable
from datetime import date, time

import dagster as dg

from cdi_dagster.core.collections import Collection
from cdi_dagster.ingestion.day_volumes import DayVolumes
from cdi_dagster.sensors.coalescer_completion import coalescer_completion_sensor


def build_sensors(
    collections: Iterable[Collection],
    *,
    first_storage_day: date,
    due_time: time,
    late_time: time,
    look_back_days: int,
    running: bool,
    volumes: DayVolumes,
) -> list[dg.SensorDefinition]:
    """Return the coalescer completion sensor of every collection."""
    return [
        coalescer_completion_sensor(
            collection,
            first_storage_day=first_storage_day,
            due_time=due_time,
            late_time=late_time,
            look_back_days=look_back_days,
            running=running,
            volumes=volumes,
        )
        for collection in collections
    ]
