"""The first of the known failures, on EMR: the coalescer comes back under a cluster, and the day recovers by itself.

Real: coalescer, gate, pin, sensor, launcher, the Spark job, publication, checks. Emulated: EMR, S3 and DynamoDB.
"""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

import cdi_dagster
from cdi_dagster.coalescer import CoalesceProgress, coalesce
from cdi_dagster.core.storage_keys import launch_prefix
from cdi_dagster.definitions import build_definitions
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.emr.ledger import LaunchLedger
from cdi_dagster.names import daily_records_key
from cdi_dagster.published.read import read_mark
from cdi_dagster.resources.status_table import DynamoDbStatusTable
from cdi_dagster.settings import load_settings
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import checks_of, failure_of, metadata_of
from cdi_dagster_tests.emr.emulator import create_status_table
from cdi_dagster_tests.emr.launches import Bench, QuickLauncher
from cdi_dagster_tests.gate.instigators import RECORDS, SENSOR
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.spark
STORAGE_DAY = (datetime.now(UTC) - timedelta(days=3)).date()
"""Due for certain, by the wall clock that the sensor goes by."""
ENTRY_POINT = Path(cdi_dagster.__file__).parent / "spark" / "entry_points" / "ingest_daily.py"


class Coalescing(threading.Thread):
    """A coalescer that comes back to a day, for late data, and pauses once it has taken the first objects away."""

    def __init__(self, corporate: Storage) -> None:
        super().__init__(name="coalescer", daemon=True)
        self._corporate = corporate
        self.has_deleted, self.may_go_on = threading.Event(), threading.Event()

    def run(self) -> None:
        coalesce(self._corporate, AUDIT.on(STORAGE_DAY), progress=self._pause)

    def _pause(self, progress: CoalesceProgress) -> None:
        if progress.batches_done == 1:
            self.has_deleted.set()
            self.may_go_on.wait(PATIENCE_SECONDS)


class Day:
    """The code location as production has it, and what a daemon does with it."""

    def __init__(self, bench: Bench, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        settings = load_settings()
        self.corporate, self.published = open_storage(settings.corporate_root), open_storage(settings.published_root)
        self.definitions = build_definitions(
            settings=settings,
            resource_overrides={"step_launcher": QuickLauncher(**bench.config(conf=settings.spark_conf))},
        )

    def tick(self) -> tuple[list[dg.RunRequest], str]:
        """Evaluate the sensor now: its requests for the day, and what it waits for."""
        repository = self.definitions.get_repository_def()
        context = dg.build_sensor_context(
            instance=self.instance, repository_def=repository, resources=dict(self.definitions.resources or {})
        )
        data = repository.get_sensor_def(SENSOR).evaluate_tick(context)
        requests = [request for request in data.run_requests or [] if request.partition_key == str(STORAGE_DAY)]
        return requests, data.skip_message or ""

    def run_as(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Run what the sensor requested, up to the published records."""
        return self.definitions.resolve_job_def(f"{AUDIT.asset_name}_daily").execute_in_process(
            partition_key=request.partition_key,
            instance=self.instance,
            raise_on_error=False,
            tags={**request.tags, "dagster/run_key": str(request.run_key)},
            asset_selection=[dg.AssetKey.from_user_string(name) for name in RECORDS],
        )


@pytest.fixture
def day(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Day]:
    create_status_table(bench.emr.client("dynamodb"), bench.status_table)
    bench.run_spark(ENTRY_POINT, master="local[2]")
    with DevelopmentKeyService() as keys, dg.DagsterInstance.ephemeral(tempdir=str(bench.folder)) as instance:
        for name, value in bench.settings(dks_url=keys.url, first_storage_day=STORAGE_DAY).items():
            monkeypatch.setenv(name, value)
        yield Day(bench, instance)


def test_a_day_that_is_coalesced_again_under_its_cluster_is_pinned_and_launched_again_by_itself(
    bench: Bench, day: Day
) -> None:
    shape = {"records": 60, "objects": 2, "kafka_partitions": 2}
    early = write_sample(day.corporate, AUDIT.on(STORAGE_DAY), **shape, seed=1)
    coalesce(day.corporate, AUDIT.on(STORAGE_DAY))
    pinned = {stored.key for stored in day.corporate.list(AUDIT.on(STORAGE_DAY).corporate_prefix)}
    [first_request], _ = day.tick()

    coalescing = Coalescing(day.corporate)
    bench.hold_clusters()

    def late_data_and_the_coalescer() -> None:
        bench.emr.wait(lambda: bool(bench.emr.live()), "a cluster is live")
        write_sample(day.corporate, AUDIT.on(STORAGE_DAY), **shape, seed=2, first_offsets=early.next_offsets)
        coalescing.start()
        coalescing.has_deleted.wait(PATIENCE_SECONDS)
        bench.let_clusters_go()

    meanwhile = threading.Thread(target=late_data_and_the_coalescer, daemon=True)
    meanwhile.start()
    first = day.run_as(first_request)
    meanwhile.join()

    failure = failure_of(first)
    assert failure["failure_class"] == "INPUT_CHANGED"
    assert [key for key in pinned if key in failure["cause"]], failure["cause"]
    assert read_mark(day.published, AUDIT.on(STORAGE_DAY)) is None
    [ended] = bench.emr.clusters.values()
    assert ended.is_ending
    assert failure["attempts"].startswith(f"1. [large, cluster {ended.cluster_id}](https://")
    assert "JOB (INPUT_CHANGED) after" in failure["attempts"]

    requests, waits_for = day.tick()
    assert requests == []
    assert "coalescer RUNNING" in waits_for
    coalescing.may_go_on.set()
    coalescing.join()

    [second_request], _ = day.tick()
    assert second_request.run_key != first_request.run_key
    second = day.run_as(second_request)
    assert second.success
    assert all(check.passed for check in checks_of(second).values())
    mark = read_mark(day.published, AUDIT.on(STORAGE_DAY))
    assert mark is not None
    assert (mark.published, mark.correlation_id) == (120, second.run_id)
    shown = metadata_of(second, RECORDS[1])["attempts"]
    assert f"cluster {list(bench.emr.clusters)[-1]}](https://" in shown
    assert "SUCCEEDED after" in shown
    assert "instance-hours" in shown
    row = DynamoDbStatusTable(bench.status_table).get(second.run_id, f"CDI-{AUDIT.id}")
    assert row is not None
    [attempt] = row.detail["attempts"]
    assert attempt["cluster_id"] == row.cluster_id == list(bench.emr.clusters)[-1]
    assert attempt["link"].endswith(f"#/clusterDetails/{row.cluster_id}")
    assert (attempt["profile"], attempt["kind"]) == ("large", "SUCCEEDED")
    assert attempt["seconds"] > 0
    assert attempt["estimated_instance_hours"] > 0
    assert [cluster.steps[0].state for cluster in bench.emr.clusters.values()] == ["FAILED", "COMPLETED"]
    entry = LaunchLedger(day.published, launch_prefix(AUDIT.on(STORAGE_DAY), "ingest_daily")).read()
    assert entry is not None
    assert [(attempt.run_id, attempt.outcome) for attempt in entry.attempts] == [
        (first.run_id, "JOB"),
        (second.run_id, "SUCCEEDED"),
    ]
    # The records are not read again: what is left to make is the tables, which these runs did not select.
    [request] = day.tick()[0]
    assert request.asset_selection
    assert daily_records_key(AUDIT) not in request.asset_selection
