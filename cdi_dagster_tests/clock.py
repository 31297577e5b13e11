"""The clock of the tests and of every Python process that they start, at any moment.

`CDI_TEST_CLOCK=2026-03-29T00:58:00Z python -m pytest …` begins at that moment, and the clock ticks on: so the tests
that use the present are run just before midnight, at a month's end, at a change of the clocks. A test that needs a
certain hour has it by `clock_at`. Not shifted: the JVM, and SQLite's CURRENT_TIMESTAMP (a
run's `update_timestamp` until its first event; its `create_timestamp` is Dagster's).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from cdi_dagster_tests.child_processes.sitecustomize import SHIFT, python_path, shift_clock


def start_clock_of_environment() -> None:
    """Set the clock for good, where the environment says to what."""
    wanted = os.environ.pop("CDI_TEST_CLOCK", None)
    if wanted:
        _shift_to(datetime.fromisoformat(wanted))


@contextmanager
def clock_at(moment: datetime) -> Iterator[None]:
    """Set the clock (aware) for the block and for what it starts; it ticks on from there."""
    before = {name: os.environ.get(name) for name in (SHIFT, "PYTHONPATH")}
    travel = _shift_to(moment)
    try:
        yield
    finally:
        travel.stop()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _shift_to(moment: datetime) -> Any:
    seconds = (moment - datetime.now(UTC)).total_seconds()
    travel = shift_clock(seconds)
    os.environ[SHIFT] = str(float(os.environ.get(SHIFT, "0")) + seconds)
    os.environ["PYTHONPATH"] = python_path()
    return travel
