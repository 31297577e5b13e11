"""What the checks show after each thing that used to make them untrue: that of the newest day, as Dagster shows it."""

import asyncio
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from freezegun import freeze_time

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.names import daily_records_key
from cdi_dagster.settings import load_settings
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DAY
from cdi_dagster_tests.gate.instigators import publish_mark, run_as, sensor_tick

NOON = datetime(2023, 3, 27, 12, 0, tzinfo=UTC)
LONG_AGO = DAY - timedelta(days=60)
ASSET = daily_records_key(AUDIT)
NAMES = ("counts_reconcile", "offsets_are_whole", "nothing_rejected", "published_on_time")


class Shown:
    """What the asset's page shows: its own GraphQL resolver's rule, on the instance's own records."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def __call__(self) -> dict[str, str]:
        return {name: self._state(dg.AssetCheckKey(ASSET, name)) for name in NAMES}

    def _state(self, key: dg.AssetCheckKey) -> str:
        record = self.record(key.name)
        if record is None:
            return "NOT EXECUTED"

        async def resolve() -> str:
            context = LoadingContextForTest(self._instance)
            is_shown = await record.targets_latest_materialization(context)
            return (await record.resolve_status(context)).value if is_shown else "NOT EXECUTED"

        return asyncio.run(resolve())

    def record(self, name: str) -> AssetCheckExecutionRecord | None:
        return self._instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(ASSET, name))


GREEN = dict.fromkeys(NAMES, "SUCCEEDED")


@pytest.fixture
def published(day):
    """Automation is on, and all due days are published: all checks are green, of the newest day."""
    day.settings = load_settings(home=day.settings.home, automation=True)
    day.use()
    for n in range(1, 7):
        day.put_object("0_9", storage_day=DAY - timedelta(days=n))
        publish_mark(day, DAY - timedelta(days=n))
    day.put_object("0_9")
    with freeze_time(NOON - timedelta(hours=2)):
        (request,) = sensor_tick(day, NOON - timedelta(hours=2)).run_requests
        assert run_as(day, request).success
    sensor_tick(day, NOON - timedelta(hours=1))
    return day


@pytest.fixture
def shown(published):
    shown = Shown(published.instance)
    assert shown() == GREEN
    return shown


def _backfill(day, storage_day, at=NOON):
    """Run one day of a backfill in process: an implicit asset job's run, with every check."""
    with freeze_time(at):
        return day.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            partition_key=str(storage_day),
            instance=day.instance,
            raise_on_error=False,
            asset_selection=[dg.AssetKey(["corporate_storage", "business_audit"]), ASSET],
            tags={"dagster/backfill": "b"},
        )


def test_a_quiet_tick_reports_no_check_again(published, shown):
    for minutes in (1, 2):
        data = sensor_tick(published, NOON + timedelta(minutes=minutes))
        assert not [event for event in data.asset_events if isinstance(event, dg.AssetCheckEvaluation)]


def test_a_newest_day_with_too_many_rejects_is_red_by_its_run_and_stays_so(published, shown):
    published.put_object("10_19")  # coalesced again
    published.spark.failure = CdiError(FailureClass.RECORDS_REJECTED, "5 of 20 records were rejected.")
    (request,) = sensor_tick(published, NOON).run_requests
    with freeze_time(NOON):
        assert not run_as(published, request).success
    for at in (None, NOON + timedelta(minutes=1), NOON + timedelta(minutes=2)):
        if at:
            sensor_tick(published, at)
        assert shown()["nothing_rejected"] == "FAILED", at
        evaluation = shown.record("nothing_rejected").evaluation
        assert evaluation.description.startswith(f"Storage day {DAY} was not published: RECORDS_REJECTED")
    assert shown() == GREEN | {"nothing_rejected": "FAILED"}
    # Fixed: green, and of the new publication.
    published.spark.failure = None
    with freeze_time(NOON + timedelta(hours=1)):
        assert published.run().success
    sensor_tick(published, NOON + timedelta(hours=2))
    assert shown() == GREEN


def test_after_a_failed_backfill_of_old_days_the_newest_day_is_shown(published, shown):
    for storage_day, failure in (
        (LONG_AGO, CdiError(FailureClass.RECORDS_REJECTED, "All were rejected.")),
        (LONG_AGO + timedelta(days=1), CdiError(FailureClass.CLUSTER_LOST, "It ended.")),
    ):
        published.put_object("0_9", storage_day=storage_day)
        published.spark.failure = failure
        assert not _backfill(published, storage_day).success
    assert "EXECUTION_FAILED" in shown().values()
    sensor_tick(published, NOON + timedelta(minutes=1))
    assert shown() == GREEN
    assert shown.record("counts_reconcile").evaluation.metadata["storage_day"].value == str(DAY)


def test_after_a_backfill_that_succeeds_too_the_newest_day_is_shown(published, shown):
    published.put_object("0_9", storage_day=LONG_AGO)
    published.spark.rejected = 1
    published.settings = load_settings(home=published.settings.home, automation=True, max_rejected="5")
    published.use()
    assert _backfill(published, LONG_AGO).success
    assert shown()["nothing_rejected"] == "FAILED"
    sensor_tick(published, NOON + timedelta(minutes=1))
    assert shown() == GREEN


def test_while_a_backfill_is_at_work_a_late_day_stays_red(published, shown):
    later, following = NOON + timedelta(days=1), DAY + timedelta(days=1)
    published.put_object("0-9", storage_day=following)
    published.status.by_day[following] = CoalescerState.RUNNING
    cursor = sensor_tick(published, later).cursor
    assert shown()["published_on_time"] == "FAILED"
    states = []

    def look():
        states.append(shown()["published_on_time"])  # the run is there, and has the checks before it
        sensor_tick(published, later + timedelta(minutes=len(states)), cursor)
        states.append(shown()["published_on_time"])

    published.put_object("0_9", storage_day=LONG_AGO)
    launch = published.spark.launch
    published.spark.launch = lambda context, step: look() or launch(context, step)
    assert _backfill(published, LONG_AGO, at=later).success
    assert states == ["IN_PROGRESS", "FAILED"]
    assert shown()["published_on_time"] == "FAILED"
    sensor_tick(published, later + timedelta(minutes=10), cursor)
    assert shown() == GREEN | {"published_on_time": "FAILED"}
