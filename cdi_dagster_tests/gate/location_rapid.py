"""The location whose sensor is evaluated as often as a daemon can, and looks at yesterday alone."""

from cdi_dagster.sensors import coalescer_completion
from cdi_dagster_tests.gate.location import location

coalescer_completion.INTERVAL_SECONDS = -1  # in every round of a daemon, also right after another daemon's
defs = location("rapid", look_back_days=1)
