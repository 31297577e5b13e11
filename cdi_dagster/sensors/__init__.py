"""When a day is asked for late, missed or again, and who is told of what failed."""

from collections.abc import Iterable
from datetime import date, time

import dagster as dg

from cdi_dagster.core.collections import Collection
from cdi_dagster.ingestion.day_volumes import DayVolumes
from cdi_dagster.sensors.coalescer_completion import coalescer_completion_sensor
from cdi_dagster.sensors.failed_runs import failed_runs_sensor


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
    """Return the coalescer completion sensor of every collection, and the one that tells of failed runs."""
    collections = list(collections)
    told = failed_runs_sensor(
        collections,
        first_storage_day=first_storage_day,
        due_time=due_time,
        look_back_days=look_back_days,
        running=running,
    )
    return [
        told,
        *(
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
        ),
    ]
