"""The location whose days were due, and late, long ago: its sensor has them."""

from datetime import time

from cdi_dagster_tests.gate.location import location

defs = location("later", late_time=time(0, 1))
