"""The real Spark of the tables is killed: the sensor's run of the tables alone makes the real tables."""

import os
import signal
import threading
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta

import pytest

from cdi_dagster.coalescer import coalesce
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.core.storage_keys import runs_prefix, tables_prefix
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.demo.sample import write_sample
from cdi_dagster.ingestion.day_progress import day_progress
from cdi_dagster.resources.local_launcher import LocalPySparkStepLauncher
from cdi_dagster.settings import load_settings
from cdi_dagster.storage.roots import Roots
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import failure_of, metadata_of
from cdi_dagster_tests.gate.instigators import launched, run_as, sensor_tick
from cdi_dagster_tests.processes import descendants_of
from cdi_dagster_tests.waiting import wait_until

pytestmark = [pytest.mark.spark, pytest.mark.kill, pytest.mark.timeout(1200)]
RECORDS = 30
RETRIED = {"CLUSTER_LOST", "OUT_OF_MEMORY"}


def test_tables_whose_spark_is_killed_are_made_by_a_run_of_the_tables_alone(day):
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    of_yesterday = AUDIT.on(yesterday)
    write_sample(day.corporate, of_yesterday, records=RECORDS, objects=3, seed=1, kafka_partitions=1)
    coalesce(day.corporate, of_yesterday)
    day.status.state = CoalescerState.NOT_STARTED
    day.status.by_day[yesterday] = CoalescerState.COMPLETE
    with DevelopmentKeyService() as keys:
        times = {"due_time": time(0), "late_time": time(23, 59)}
        day.settings = load_settings(home=day.settings.home, dks_url=keys.url, **times)
        day.use(step_launcher=LocalPySparkStepLauncher.of(day.settings.local_spark))
        killer = threading.Thread(target=_kill_the_tables, args=(day.published,), daemon=True)
        killer.start()
        failed = day.run(storage_day=yesterday, tags={"cdi/launched_by": "sensor"})
        killer.join()
    assert failure_of(failed)["failure_class"] in RETRIED
    before = _progress(day, of_yesterday)
    assert (before.published_records, before.is_whole) == (RECORDS, False)
    assert before.missing_tables == AUDIT.table_names

    # The key service is gone: no record can be decrypted again.
    later = datetime.now(UTC) + timedelta(minutes=11)
    (request,) = sensor_tick(day, later).run_requests
    alone = run_as(day, request)
    assert alone.success
    assert metadata_of(alone, "business_audit/auditlog_red_v")["dagster/row_count"] == RECORDS
    assert _progress(day, of_yesterday).is_whole
    reports = [stored.key.rsplit("/", 1)[1] for stored in day.published.list(runs_prefix(of_yesterday))]
    assert (reports.count("ingest_report.json"), reports.count("tables_report.json")) == (1, 1)
    assert launched(sensor_tick(day, later)) == []


def _kill_the_tables(published):
    wait_until(lambda: any(published.list(tables_prefix())), "the Spark of the tables writes")
    spark = [
        each.pid
        for each in descendants_of(os.getpid())
        if "/bin/java" in each.command and "publish_tables" in each.command
    ]
    for pid in spark:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _progress(day, of_yesterday):
    roots = Roots(corporate=day.corporate, published=day.published)
    return day_progress(roots, of_yesterday, fingerprint=None)
