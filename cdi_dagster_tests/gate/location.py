"""A code location of tests: the real definitions with an ingestion that needs no Spark.

`CDI_TEST_DUE_TIME_<NAME>` sets when days are due, so that one Dagster can hold a location whose schedule is about to
tick and others whose sensor has the day already. Loaded by a real Dagster, see `test_daemon`.
"""

import os
from datetime import time
from pathlib import Path
from typing import Any

import dagster as dg

from cdi_dagster.definitions import build_definitions
from cdi_dagster.settings import load_settings
from cdi_dagster_tests.gate.quick_ingestion import QuickLauncher


def location(name: str, *, late_time: time = time(23, 59, 59), look_back_days: int = 7) -> dg.Definitions:
    """Return the definitions of one location, on storage of its own below CDI_HOME."""
    home = Path(os.environ["CDI_HOME"])
    due_time = time.fromisoformat(os.environ[f"CDI_TEST_DUE_TIME_{name.upper()}"])
    times: dict[str, Any] = {"due_time": due_time, "late_time": late_time, "look_back_days": look_back_days}
    settings = load_settings(home=home / name, **times)
    launcher = QuickLauncher(launches=str(home / name / "launches"))
    return build_definitions(settings=settings, resource_overrides={"step_launcher": launcher})
