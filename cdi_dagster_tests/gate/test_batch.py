"""The gate by AWS Batch, whole: from a job's submission to the day that it coalesced again, at a bounded cost."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from cdi_dagster.cli.gate import coalescer_status
from cdi_dagster.coalescer_status.batch_jobs import QUEUES
from cdi_dagster.coalescer_status.batch_status import BatchCoalescerStatus
from cdi_dagster.core.storage_keys import daily_records_prefix
from cdi_dagster.resources.coalescer import CoalescerStatusResource
from cdi_dagster.settings import SettingsError, load_settings
from cdi_dagster.storage import open_storage
from cdi_dagster.storage.roots import Roots
from cdi_dagster_tests.clock import clock_at
from cdi_dagster_tests.coalescer_status.test_batch_status import REGION, batch  # noqa: F401
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DAY, DagsterDay
from cdi_dagster_tests.gate.instigators import launched, publish_mark, run_as, sensor_tick


@pytest.fixture
def world(day: DagsterDay, batch):  # noqa: F811
    """Yesterday, whose coalescer jobs Batch knows."""
    with clock_at(datetime.now(UTC).replace(hour=10, minute=0)):  # midnight must not come in the middle
        day.batch = batch
        day.yesterday = datetime.now(UTC).date() - timedelta(days=1)
        day.status = BatchCoalescerStatus(
            batch.client, Roots(corporate=day.corporate, published=day.published), cache_seconds=0
        )
        yield day


def _tick(world):
    return sensor_tick(world, datetime.now(UTC).replace(hour=23, minute=0))


def test_a_day_goes_when_all_its_jobs_have_succeeded_and_again_only_when_the_coalescer_changed_it(world):
    world.put_object("0_9", storage_day=world.yesterday)
    job = world.batch.submit("RUNNABLE", queue=QUEUES[1])
    waiting = _tick(world)
    assert not waiting.run_requests
    assert "RUNNING: coalescer for" in waiting.skip_message
    world.batch.set_status(job, "SUCCEEDED")
    (request,) = _tick(world).run_requests
    assert run_as(world, request).success
    quiet = _tick(world)
    assert launched(quiet) == []
    assert f"{world.yesterday}:" not in quiet.skip_message  # it waits for nothing

    # Somebody runs the coalescer again: while it runs the gate is shut, then nothing has changed.
    job = world.batch.submit("RUNNING")
    assert "published; since then coalescer RUNNING" in _tick(world).skip_message
    world.batch.set_status(job, "SUCCEEDED")
    assert launched(_tick(world)) == []

    # Late data, and the coalescer again: now something has.
    world.put_object("10_19", storage_day=world.yesterday)
    world.batch.submit("SUCCEEDED")
    (again,) = _tick(world).run_requests
    assert again.run_key != request.run_key
    assert run_as(world, again).success
    assert launched(_tick(world)) == []


def test_a_failure_after_a_success_shuts_the_gate_again(world):
    world.put_object("0_9", storage_day=world.yesterday)
    world.batch.submit("SUCCEEDED")
    world.batch.submit("FAILED")
    assert f"{world.yesterday}: coalescer FAILED" in _tick(world).skip_message


def test_a_fresh_dagster_does_not_ingest_again_what_is_published(world):
    world.put_object("0_9", storage_day=world.yesterday)
    world.batch.submit("SUCCEEDED")
    publish_mark(world, world.yesterday, at=datetime.now(UTC) - timedelta(days=1))
    assert launched(_tick(world)) == []
    assert world.published.head(f"{daily_records_prefix(AUDIT.on(world.yesterday))}_SUCCESS")


@pytest.mark.parametrize(
    ("name", "says"),
    [("marker", "has not started"), ("quiet", "no objects for"), ("batch", "could not query AWS Batch")],
)
def test_the_setting_chooses_who_is_asked_by_dagster_and_terminal(name, says, tmp_path, monkeypatch):
    for variable, value in (("ENDPOINT_URL", "http://127.0.0.1:9"), ("MAX_ATTEMPTS", "1"), ("DEFAULT_REGION", REGION)):
        monkeypatch.setenv(f"AWS_{variable}", value)
    settings = load_settings(home=tmp_path, coalescer_source=name)
    roots = {"corporate_root": settings.corporate_root, "published_root": settings.published_root}
    resource = CoalescerStatusResource(source=settings.coalescer_source, **roots)
    corporate, published = (open_storage(root) for root in roots.values())
    corporate.write(f"{AUDIT.on(DAY - timedelta(days=1)).corporate_prefix}{AUDIT.topic}_0_0_9.jsonl.gz", b"x")
    assert says in resource.create_resource(dg.build_init_resource_context()).status(AUDIT.on(DAY)).reason
    assert says in coalescer_status(settings, Roots(corporate=corporate, published=published), AUDIT.on(DAY)).reason


def test_ticks_share_one_look_at_batch(tmp_path):
    resource = CoalescerStatusResource(source="batch", corporate_root=tmp_path.as_uri(), published_root="file:///p")
    first, second = (resource.create_resource(dg.build_init_resource_context()) for _ in range(2))
    assert first is second


def test_queues_are_named_with_commas_and_an_unknown_source_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CDI_COALESCER_BATCH_QUEUES", "one, two")
    assert load_settings(home=tmp_path).coalescer_batch_queues == ("one", "two")
    monkeypatch.setenv("CDI_COALESCER_SOURCE", "guess")
    with pytest.raises(SettingsError, match="CDI_COALESCER_SOURCE"):
        load_settings(home=tmp_path)
