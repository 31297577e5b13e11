"""Tables that are killed or fail, with real processes: published alone by the sensor; the day is done with them."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from cdi_dagster.core.storage_keys import runs_prefix
from cdi_dagster.names import table_keys
from cdi_dagster_tests.clock import clock_at
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.gate.real_dagster import RECORDS, gate_dagster

pytestmark = [pytest.mark.daemon, pytest.mark.kill, pytest.mark.timeout(1800)]
DATA_PRODUCT = "CDI-data:businessAudit"
SENSOR = "business_audit_coalescer_completion_sensor"
NAMES = list(AUDIT.table_names)
TABLES = "publish_tables"


@pytest.fixture
def dagster(tmp_path):
    mid_morning = datetime.now(UTC).replace(hour=10, minute=0)
    with clock_at(mid_morning), gate_dagster(tmp_path, locations=("retries",)) as running:
        yield running


def test_tables_that_are_killed_or_fail_once_are_published_alone_and_the_day_is_done_then(dagster):
    retries, killed = dagster.retries, datetime.now(UTC).date() - timedelta(days=1)
    lost = killed - timedelta(days=1)
    retries.coalesced(AUDIT, lost, killed)
    retries.start("sensor", SENSOR)
    retries.start("sensor", "failed_runs_sensor")
    with retries.holding(killed, step=TABLES):
        retries.lose_once(lost, step=TABLES)
        (first, worker) = dagster.wait(lambda: retries.tables_at_work(killed), "the tables are at work")[0]
        assert retries.is_published(AUDIT, killed) == RECORDS
        assert _status(retries, killed) == (True, NAMES, False)
        assert retries.rows.get(first, DATA_PRODUCT).status == "IN_PROGRESS"
        _two_more_ticks(dagster)
        assert dagster.heard.of("LATE", storage_day=killed)
        assert not dagster.heard.of("LATE_OVER", storage_day=killed)
        os.kill(worker, signal.SIGKILL)
        dagster.wait(lambda: dagster.failure_class(first), "Dagster notices that the worker is lost")
        assert not dagster.heard.of("LATE_OVER", storage_day=killed)
        assert retries.is_published(AUDIT, killed) == RECORDS
    for day in (killed, lost):
        dagster.wait(lambda day=day: dagster.heard.of("LATE_OVER", storage_day=day), f"{day} is published")
        assert _status(retries, day) == (True, [], True)
    _two_more_ticks(dagster)

    for day, failure in ((killed, "WORKER_LOST"), (lost, "CLUSTER_LOST")):
        whole, alone = (record.dagster_run for record in dagster.runs(day))
        assert (whole.tags["cdi/failure_class"], alone.status.value) == (failure, "SUCCESS")
        assert whole.tags["cdi/told"].startswith(f"{failure}; no alert is sent: ")
        assert alone.asset_selection == frozenset(table_keys(AUDIT))
        assert alone.asset_check_selection == frozenset()
        assert alone.tags["cdi/launched_by"] == "sensor"
        # The records were read once, and the tables were published once.
        assert retries.at_work(day) == [whole.run_id]
        assert [run for run, _ in retries.tables_at_work(day)] == [whole.run_id, alone.run_id]
        reports = [stored.key.split("/")[-2:] for stored in retries.published.list(runs_prefix(AUDIT.on(day)))]
        assert [run for run, name in reports if name == "ingest_report.json"] == [whole.run_id]
        assert [run for run, name in reports if name == "tables_report.json"] == [alone.run_id]
        assert [retries.rows.get(run.run_id, DATA_PRODUCT).status for run in (whole, alone)] == ["FAILED", "COMPLETED"]
        assert (
            len(dagster.heard.of("LATE", storage_day=day)) == len(dagster.heard.of("LATE_OVER", storage_day=day)) == 1
        )
    assert dagster.heard.of("FAILED") == []
    assert dagster.checks_by_sensor("business_audit/daily_records", "published_on_time")[0]


def _two_more_ticks(dagster):
    ticks = len(dagster.ticks(SENSOR))
    dagster.wait(lambda: len(dagster.ticks(SENSOR)) >= ticks + 2, "the sensor looks again")


def _status(place, day):
    """Return what `cdi status` shows: records published, tables missing, the day whole."""
    command = [sys.executable, "-m", "cdi_dagster.cli", "status", "--collection", AUDIT.id, "--storage-day", str(day)]
    environment = os.environ | {"CDI_HOME": str(place.settings.home)}
    shown = subprocess.run([*command, "--json"], env=environment, check=False, capture_output=True)
    status = json.loads(shown.stdout)
    assert shown.returncode == {"published": 0, "failed": 1}.get(status["state"], 3)
    return status["published"], status["missing_tables"], status["is_whole"]
