"""The metrics sensor: at each tick it puts a heartbeat, from which an alarm knows that sensors run."""

from collections.abc import Callable
from datetime import datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.clock import utc_now
from cdi_dagster.core.metrics import heartbeat
from cdi_dagster.interfaces import MetricsSink

INTERVAL_SECONDS = 30
"""Twice in the minute that an alarm counts."""


def metrics_sensor(*, running: bool, clock: Callable[[], datetime] = utc_now) -> dg.SensorDefinition:
    """Return the sensor.

    Args:
        running: whether it is on by default.
        clock: aware, UTC.
    """

    @dg.sensor(
        name=names.METRICS_SENSOR,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description="Puts a heartbeat into the metrics (CDI_METRICS) at each tick. Where it is missing, sensors do not "
        "run, and an alarm outside Dagster goes off.",
    )
    def sensor(metrics: dg.ResourceParam[MetricsSink]) -> dg.SkipReason:
        metrics.put([heartbeat(clock())])
        return dg.SkipReason("The heartbeat was put.")

    return sensor
