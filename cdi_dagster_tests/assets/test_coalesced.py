"""Where Dagster coalesces: one graph, one click, one schedule; with the gate and the guarantees as they are."""

import gzip
from datetime import UTC, datetime, timedelta

import pytest

from cdi_dagster.coalescer.claim import Claim
from cdi_dagster.coalescer_status.sources import coalescer_source
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.definitions import installation_resources
from cdi_dagster.settings import SettingsError, load_settings
from cdi_dagster.storage.roots import Roots
from cdi_dagster_tests.clock import clock_at
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DagsterDay, failure_of, metadata_of
from cdi_dagster_tests.gate.instigators import launched, run_as, schedule_tick, sensor_tick
from cdi_dagster_tests.instance import instance_on_disk

COALESCED = "corporate_storage/business_audit_coalesced"
INPUT = "corporate_storage/business_audit"
RECORDS = "business_audit/daily_records"
TEN = datetime.now(UTC).replace(hour=10, minute=0)
YESTERDAY = (TEN - timedelta(days=1)).date()


@pytest.fixture
def day(tmp_path):
    """Yesterday, with the gate that its own coalescer opens; midnight must not come in the middle."""
    with instance_on_disk() as instance, clock_at(TEN):
        world = DagsterDay(
            tmp_path, instance, coalescer_in_dagster=True, coalescer_processes=2, first_storage_day=str(YESTERDAY)
        )
        roots = Roots(corporate=world.corporate, published=world.published)
        world.status = coalescer_source("marker", roots, lease_seconds=120, quiet_seconds=60, runs_coalesce=True)
        world.use()
        yield world


def put_raw(day, *firsts):
    for first in firsts:
        day.put_object(f"{first}-{first + 4}", storage_day=YESTERDAY, content=gzip.compress(b"{}\n" * 5))


def names(day):
    listing = day.corporate.list(AUDIT.on(YESTERDAY).corporate_prefix)
    return [stored.key.rpartition("businessAudit_")[2] for stored in listing]


def test_a_click_coalesces_pins_and_publishes(day):
    put_raw(day, 0, 5, 10)
    result = day.run(storage_day=YESTERDAY)
    assert result.success
    coalesced = metadata_of(result, COALESCED)
    assert (coalesced["coalesced"], coalesced["objects_before"], coalesced["objects_after"]) == ("by this run", 3, 1)
    assert metadata_of(result, INPUT)["coalesced_objects"] == "1"
    assert metadata_of(result, RECORDS)["records_published"] == 15
    assert names(day) == ["0_0_14.jsonl.gz"]
    again = day.run(storage_day=YESTERDAY)
    assert metadata_of(again, COALESCED)["coalesced"].startswith("already: coalescer for")


def test_the_schedule_launches_a_day_that_nobody_coalesced_and_the_sensor_one_with_late_objects(day):
    put_raw(day, 0, 5)
    (request,) = schedule_tick(day, TEN.replace(hour=9, minute=30, second=0, microsecond=0)).run_requests
    assert run_as(day, request).success
    assert launched(sensor_tick(day, TEN)) == []
    put_raw(day, 10, 15)
    (late,) = sensor_tick(day, TEN + timedelta(minutes=5)).run_requests
    assert late.run_key != request.run_key
    result = run_as(day, late)
    assert metadata_of(result, RECORDS)["records_published"] == 20
    assert launched(sensor_tick(day, TEN + timedelta(minutes=10))) == []


def test_what_cannot_be_coalesced_fails_the_run_with_the_object_and_nothing_is_pinned(day):
    put_raw(day, 0, 5)
    bad = day.put_object("10-14", storage_day=YESTERDAY, content=b"not gzip")
    result = day.run(storage_day=YESTERDAY)
    failure = failure_of(result)
    assert failure["failure_class"] == "COALESCER_FAILED"
    assert bad in failure["cause"]
    assert not day.spark.launched
    assert day.status.status(AUDIT.on(YESTERDAY)).state is CoalescerState.FAILED


def test_beside_another_coalescer_it_changes_nothing(day):
    put_raw(day, 0, 5)
    with Claim(day.corporate, AUDIT.on(YESTERDAY)):
        assert not day.status.status(AUDIT.on(YESTERDAY)).run_coalesces
        assert launched(sensor_tick(day, TEN)) == []
        assert failure_of(day.run(storage_day=YESTERDAY))["failure_class"] == "COALESCER_RUNNING"
    assert names(day) == ["0_0-4.jsonl.gz", "0_5-9.jsonl.gz"]


def test_it_is_off_by_default_and_needs_the_marker_as_the_source(tmp_path):
    with instance_on_disk() as instance:
        keys = {
            key.to_user_string() for asset in DagsterDay(tmp_path, instance).definitions.assets for key in asset.keys
        }
    assert COALESCED not in keys
    assert not installation_resources(load_settings(home=tmp_path))["coalescer_status"].runs_coalesce
    on = load_settings(home=tmp_path, coalescer_in_dagster=True)
    assert installation_resources(on)["coalescer_status"].runs_coalesce
    with pytest.raises(SettingsError, match="CDI_COALESCER_SOURCE=marker"):
        load_settings(home=tmp_path, coalescer_in_dagster=True, coalescer_source="batch")


def test_it_comes_first_in_the_job_and_takes_turns_in_a_pool_of_its_own(day):
    assets = {key.to_user_string(): asset for asset in day.definitions.assets for key in asset.keys}
    assert assets[COALESCED].op.pool == "cdi_business_audit_coalesce"
    spec = next(iter(assets[INPUT].specs))
    assert [dep.asset_key.to_user_string() for dep in spec.deps] == [COALESCED]
    assert "**Grain**: " in next(iter(assets[COALESCED].specs)).description
