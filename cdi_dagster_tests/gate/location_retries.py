"""The location whose sensors are evaluated as often as a daemon can, and whose failed runs are retried in seconds."""

from datetime import time, timedelta

from cdi_dagster.core import launch_decision
from cdi_dagster.sensors import coalescer_completion, failed_runs
from cdi_dagster_tests.gate.location import location

coalescer_completion.INTERVAL_SECONDS = failed_runs.INTERVAL_SECONDS = -1
launch_decision.RETRY_WAIT = timedelta(seconds=1)
defs = location("retries", late_time=time(0, 1), look_back_days=2)
