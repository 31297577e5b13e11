"""The location whose days were due long ago: its sensor has them."""

from cdi_dagster_tests.gate.location import location

defs = location("later")
