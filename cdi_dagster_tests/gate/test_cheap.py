"""A tick is cheap: a thousand days of history, a bounded number of calls to storage."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from cdi_dagster.coalescer import coalesce
from cdi_dagster.coalescer_status.marker_status import MarkerCoalescerStatus
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.ingestion.day_volumes import HISTORY_DAYS
from cdi_dagster.storage.interface import Storage
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DagsterDay
from cdi_dagster_tests.gate.instigators import publish_mark, sensor_tick

pytestmark = pytest.mark.slow  # a thousand runs, written one by one

YESTERDAY = datetime(2025, 9, 27, tzinfo=UTC).date()
TICK = datetime(2025, 9, 28, 10, tzinfo=UTC)


class Counting:
    """A storage that counts what it is asked."""

    def __init__(self, storage: Storage, calls: Counter) -> None:
        self._storage, self._calls = storage, calls

    def __getattr__(self, name):
        found = getattr(self._storage, name)
        if name not in ("list", "head", "open", "read", "write"):
            return found

        def counted(*args, **kwargs):
            self._calls[name] += 1
            return found(*args, **kwargs)

        return counted


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A thousand days: each has a run in the instance; those that a tick may look at are on storage too."""
    with dg.DagsterInstance.ephemeral() as instance:
        day = DagsterDay(tmp_path_factory.mktemp("home"), instance)
        for n in range(1000):
            partition = str(YESTERDAY - timedelta(days=n))
            tags = {"dagster/partition": partition, "cdi/launch": f"{partition}|f", "cdi/launched_by": "schedule"}
            instance.add_run(
                dg.DagsterRun(job_name="business_audit_daily", tags=tags, status=dg.DagsterRunStatus.SUCCESS)
            )
        for n in range(20):
            storage_day = YESTERDAY - timedelta(days=n)
            write_sample(day.corporate, AUDIT.on(storage_day), records=8, objects=4, seed=1, kafka_partitions=1)
            coalesce(day.corporate, AUDIT.on(storage_day))
            publish_mark(day, storage_day)
        day.calls = Counter()
        day.corporate = Counting(day.corporate, day.calls)
        day.published = Counting(day.published, day.calls)
        day.marker = MarkerCoalescerStatus(day.corporate, lease_seconds=120, clock=lambda: TICK)
        day.status = day.marker
        yield day


def _counted_tick(day, at=TICK):
    day.calls.clear()
    return sensor_tick(day, at)


def test_a_quiet_tick_takes_a_handful_of_calls_a_day(history):
    days = history.settings.look_back_days
    # The first tick is not quiet: it reports the checks; three of them read what they check of the newest day.
    assert len(_counted_tick(history).asset_events) == 4
    assert history.calls["read"] <= 2 * days + 3 * 3
    data = _counted_tick(history)
    assert data.skip_message == "Every due day from 2025-09-21 to 2025-09-27 is published."
    # Of each day: its mark; its runs' reports, of which it reads one; its coalescer's marker (two calls) and what lies
    # there.
    assert history.calls == {"read": 2 * days, "head": days, "open": days, "list": 2 * days}


def test_a_shut_gate_costs_one_comparison_with_the_days_before_and_then_none(history):
    history.published.delete([f"corporate_data_ingestion/json/daily/{TICK.date()}/data/businessAudit/_SUCCESS"])
    history.marker.status = lambda day: MarkerCoalescerStatus.status(history.marker, day)
    shut = history.marker.status

    def status(day):
        found = shut(day)
        if day.storage_day == YESTERDAY:
            return type(found)(state=CoalescerState.RUNNING, reason="still running")
        return found

    history.marker.status = status
    first = _counted_tick(history)
    assert "coalescer RUNNING: still running (1 objects" in first.skip_message
    assert "usual volume" in first.skip_message
    days = history.settings.look_back_days
    assert history.calls["list"] <= days + (days - 1) + HISTORY_DAYS + 1
    second = _counted_tick(history, TICK + timedelta(minutes=1))
    assert "usual volume" in second.skip_message
    # Each day's objects, and the reports of those that are published.
    assert history.calls["list"] == days + (days - 1)
