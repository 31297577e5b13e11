"""One storage day on a real Dagster instance, for most tests here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdi_dagster.core.gate import CoalescerState
from cdi_dagster_tests.dagster_day import DAY, DagsterDay
from cdi_dagster_tests.instance import instance_on_disk


@pytest.fixture
def day(tmp_path: Path) -> Iterator[DagsterDay]:
    with instance_on_disk() as instance:
        yield DagsterDay(tmp_path, instance)


@pytest.fixture
def open_day(day: DagsterDay) -> DagsterDay:
    """The day with an object of ten envelopes, and the coalescer done with it; the other days are not there."""
    day.put_object("0_9")
    day.status.state = CoalescerState.NOT_STARTED
    day.status.by_day[DAY] = CoalescerState.COMPLETE
    return day
