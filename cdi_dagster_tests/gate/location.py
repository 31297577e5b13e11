"""A code location of tests: the real definitions with an ingestion that needs no Spark.

Locations differ in when days are due, so that one Dagster can hold a location whose schedule is about to tick and
others whose sensor has the day already. Loaded by a real Dagster, see `test_daemon`.
"""

import os
from datetime import time
from pathlib import Path
from typing import Any

import dagster as dg

from cdi_dagster.definitions import build_definitions
from cdi_dagster.settings import load_settings
from cdi_dagster_tests.gate.quick_ingestion import QuickLauncher


def location(
    name: str, *, due_time: time = time(0), late_time: time = time(23, 59, 59), look_back_days: int = 7
) -> dg.Definitions:
    """Return the definitions of one location, on storage of its own below CDI_HOME."""
    home = home_of(name)
    times: dict[str, Any] = {"due_time": due_time, "late_time": late_time, "look_back_days": look_back_days}
    settings = load_settings(home=home, **times)
    launcher = QuickLauncher(launches=str(home / "launches"))
    return build_definitions(settings=settings, resource_overrides={"step_launcher": launcher})


def home_of(name: str) -> Path:
    return Path(os.environ["CDI_HOME"]) / name
