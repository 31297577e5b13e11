"""`cdi relaunch` against a real Dagster webserver: the backfill it launches is of the days that were meant."""

import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from cdi_dagster.cli.servers import Guarded, free_port
from cdi_dagster.cli.webserver import Webserver
from cdi_dagster_tests.cli.conftest import Cdi

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
DAY_BEFORE = YESTERDAY - timedelta(days=1)
AUDIT = ("--collection", "data:businessAudit")

pytestmark = pytest.mark.daemon


@pytest.fixture(scope="module")
def dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dagster_home")


@pytest.fixture(scope="module")
def webserver_url(dagster_home: Path) -> Iterator[str]:
    port = free_port()
    settings = {"CDI_HOME": str(dagster_home / "cdi"), "CDI_FIRST_STORAGE_DAY": str(DAY_BEFORE)}
    command = [sys.executable, "-m", "dagster_webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, **settings, "DAGSTER_HOME": str(dagster_home)}
    with Guarded(command, environment=environment, log_path=dagster_home / "log") as process:
        webserver = Webserver(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 120
        while not webserver.answers() and time.monotonic() < deadline:
            process.require_running("The webserver")
            time.sleep(0.2)
        yield webserver.url


def test_export_days_become_a_backfill_of_the_storage_days_before_them(
    cdi: Cdi, webserver_url: str, dagster_home: Path
) -> None:
    days = ("--export-day", str(YESTERDAY), "--to", str(YESTERDAY + timedelta(days=1)))
    answer = cdi("relaunch", *AUDIT, *days, "--url", webserver_url, "--json")
    assert answer.exit_code == 0, answer.stderr
    assert answer.json["storage_days"] == [str(DAY_BEFORE), str(YESTERDAY)]
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        backfill = instance.get_backfill(answer.json["backfill_id"])
    assert backfill is not None
    assert backfill.tags["cdi/asked_by"] == "cdi relaunch"
    selected = {key.to_user_string() for key in backfill.asset_selection or ()}
    assert selected == set(answer.json["assets"])
    assert {"corporate_storage/business_audit", "business_audit/daily_records"} <= selected
    assert not {key for key in selected if "equality" in key}


def test_a_day_that_is_no_partition_is_refused_with_those_that_are(cdi: Cdi, webserver_url: str) -> None:
    answer = cdi("relaunch", *AUDIT, "--export-day", "2023-03-27", "--url", webserver_url)
    assert answer.exit_code == 1
    assert answer.stderr.startswith("INPUT_INVALID: 2023-03-26 cannot be ingested")
    assert f"from {DAY_BEFORE} to {YESTERDAY}" in answer.stderr


def test_a_collection_without_assets_is_refused(cdi: Cdi, webserver_url: str) -> None:
    day = ("--export-day", str(YESTERDAY))
    answer = cdi("relaunch", "--collection", "other:things", *day, "--url", webserver_url)
    assert answer.exit_code == 1
    assert "has no assets of other:things" in answer.stderr


def test_a_webserver_that_is_not_there_is_named_with_how_to_start_it(cdi: Cdi) -> None:
    answer = cdi("relaunch", *AUDIT, "--export-day", str(YESTERDAY), "--url", f"http://127.0.0.1:{free_port()}")
    assert answer.exit_code == 1
    assert answer.stderr.startswith("LAUNCH_FAILED: Dagster's webserver at http://127.0.0.1:")
    assert "make dev" in answer.stderr
