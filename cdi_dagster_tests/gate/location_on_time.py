"""The location whose schedule is about to tick."""

from cdi_dagster_tests.gate.location import location

defs = location("on_time")
