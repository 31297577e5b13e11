"""The sensors: they launch days that were late, missed or failed, alert on call of failed runs, and put metrics."""

from collections.abc import Iterable

import dagster as dg

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.ingestion.day_volumes import DayVolumes
from cdi_dagster.sensors.coalescer_completion import coalescer_completion_sensor
from cdi_dagster.sensors.failed_runs import failed_runs_sensor
from cdi_dagster.sensors.metrics import metrics_sensor
from cdi_dagster.sensors.snapshot import snapshot_sensor


def build_sensors(
    collections: Iterable[Collection],
    *,
    calendar: DayCalendar,
    running: bool,
    volumes: DayVolumes,
    metrics: bool = False,
) -> list[dg.SensorDefinition]:
    """Return the coalescer completion and snapshot sensors, that of failed runs and, by `metrics`, that of metrics."""
    collections = list(collections)
    return [
        failed_runs_sensor(collections, calendar=calendar, running=running),
        *(
            coalescer_completion_sensor(
                collection,
                calendar=calendar,
                running=running,
                volumes=volumes,
            )
            for collection in collections
        ),
        *(snapshot_sensor(each, calendar=calendar, running=running) for each in collections if each.is_keyed),
        *([metrics_sensor(collections, calendar=calendar, running=running)] if metrics else []),
    ]
