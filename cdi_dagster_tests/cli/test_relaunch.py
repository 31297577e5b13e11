"""`cdi relaunch` against a real Dagster webserver: the backfill it launches is of the days that were meant."""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import dagster as dg
import pytest

from cdi_dagster.cli.servers import Guarded
from cdi_dagster.cli.webserver import Webserver
from cdi_dagster.core.collections import find_collection
from cdi_dagster.table_definitions import with_tables
from cdi_dagster_tests.cli.conftest import Cdi
from cdi_dagster_tests.clock import clock_at
from cdi_dagster_tests.collections import AUDIT as WITH_TABLES
from cdi_dagster_tests.waiting import reserved_port, wait_until

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
DAY_BEFORE = YESTERDAY - timedelta(days=1)
FIRST_DAY = YESTERDAY - timedelta(days=20)
FRIDAYS = [day for day in (FIRST_DAY + timedelta(days=number) for number in range(7, 22)) if day.weekday() == 4]
AUDIT = ("--collection", "data:businessAudit")
PARTS = ("--collection", "calculator:calculationParts")
PARTS_WITH_TABLES = with_tables(find_collection("calculator:calculationParts"), {})

pytestmark = pytest.mark.daemon


@pytest.fixture(scope="module")
def dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dagster_home")


@pytest.fixture(scope="module")
def webserver_url(dagster_home: Path) -> Iterator[str]:
    settings = {"CDI_HOME": str(dagster_home / "cdi"), "CDI_FIRST_STORAGE_DAY": str(FIRST_DAY)}
    command = [sys.executable, "-m", "dagster_webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p"]
    # The tests' yesterday stays the webserver's, also where midnight has come since these modules were imported.
    clock = clock_at(datetime.combine(YESTERDAY + timedelta(days=1), time(10), tzinfo=UTC))
    with clock, reserved_port() as port:
        environment = {**os.environ, **settings, "DAGSTER_HOME": str(dagster_home)}
        with Guarded([*command, str(port)], environment=environment, log_path=dagster_home / "log") as process:
            webserver = Webserver(f"http://127.0.0.1:{port}")

            def answers() -> bool:
                process.require_running("The webserver")
                return webserver.answers()

            wait_until(answers, "the webserver answers", seen=process.log)
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
    assert backfill.tags["cdi/requested_by"] == "cdi relaunch"
    selected = {key.to_user_string() for key in backfill.asset_selection or ()}
    assert selected == set(answer.json["assets"])
    assert {"corporate_storage/business_audit", "business_audit/daily_records"} <= selected
    assert not {key for key in selected if "equality" in key}


def test_choices_of_the_launchpad_reach_the_runs_of_storage_days(
    cdi: Cdi, webserver_url: str, dagster_home: Path
) -> None:
    choices = ("--max-rejected", "0.5%", "--wait-for-coalescer", "30", "--override-gate")
    answer = cdi("relaunch", *AUDIT, "--storage-day", str(YESTERDAY), *choices, "--json", CDI_DAGSTER_URL=webserver_url)
    assert answer.exit_code == 0, answer.stderr
    assert answer.json["storage_days"] == [str(YESTERDAY)]
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        backfill = instance.get_backfill(answer.json["backfill_id"])
    assert backfill is not None
    assert backfill.run_config == {
        "ops": {
            "corporate_storage__business_audit": {
                "config": {"override_gate": True, "wait_for_coalescer_minutes": 30},
            },
            "business_audit__daily_records": {"config": {"max_rejected": "0.5%"}},
        }
    }


def test_tables_alone_are_relaunched_too(cdi: Cdi, webserver_url: str) -> None:
    answer = cdi("relaunch", *AUDIT, "--storage-day", str(YESTERDAY), "--tables-only", "--url", webserver_url, "--json")
    assert answer.exit_code == 0, answer.stderr
    tables = {f"business_audit/{name.partition('.')[2]}" for name in WITH_TABLES.table_names}
    assert set(answer.json["assets"]) == tables


def test_a_day_that_is_no_partition_is_refused_with_those_that_are(cdi: Cdi, webserver_url: str) -> None:
    answer = cdi("relaunch", *AUDIT, "--export-day", "2023-03-27", "--url", webserver_url)
    assert answer.exit_code == 1
    assert answer.stderr.startswith("INPUT_INVALID: 2023-03-26 cannot be run")
    assert f"from {FIRST_DAY} to {YESTERDAY}" in answer.stderr


def test_fridays_of_a_keyed_collection_become_a_backfill_of_its_snapshots_and_their_tables(
    cdi: Cdi, webserver_url: str, dagster_home: Path
) -> None:
    fridays = ("--export-day", str(FRIDAYS[0]), "--to", str(FRIDAYS[1]), "--url", webserver_url, "--json")
    answer = cdi("relaunch", *PARTS, *fridays)
    assert answer.exit_code == 0, answer.stderr
    assert (answer.json["snapshots"], answer.json["run_config"]) == ([str(day) for day in FRIDAYS[:2]], {})
    tables = {f"calculation_parts/{name.partition('.')[2]}" for name in PARTS_WITH_TABLES.snapshot_table_names}
    assert set(answer.json["assets"]) == {"calculation_parts/snapshot", *tables}
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        backfill = instance.get_backfill(answer.json["backfill_id"])
    assert backfill is not None
    assert {key.to_user_string() for key in backfill.asset_selection or ()} == set(answer.json["assets"])
    assert set(cdi("relaunch", *PARTS, *fridays, "--tables-only").json["assets"]) == tables


def test_the_runs_of_a_backfill_can_be_followed(webserver_url: str, dagster_home: Path) -> None:
    tags = {"dagster/backfill": "followed", "dagster/partition": str(YESTERDAY)}
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        run = instance.add_run(dg.DagsterRun(job_name="any", tags=tags, status=dg.DagsterRunStatus.SUCCESS))
        instance.add_run(dg.DagsterRun(job_name="any", tags={**tags, "dagster/backfill": "other"}))
    (found,) = Webserver(webserver_url).runs_of_backfill("followed")
    assert (found["runId"], found["status"]) == (run.run_id, "SUCCESS")
    assert {"key": "dagster/partition", "value": str(YESTERDAY)} in found["tags"]


def test_days_of_a_keyed_collection_are_relaunched_without_its_snapshots(cdi: Cdi, webserver_url: str) -> None:
    day = ("--storage-day", str(YESTERDAY), "--url", webserver_url, "--json")
    answer = cdi("relaunch", *PARTS, *day)
    assert answer.exit_code == 0, answer.stderr
    assert set(answer.json["assets"]) == {"corporate_storage/calculation_parts", "calculation_parts/daily_rows"}


def test_a_friday_without_a_snapshot_is_refused_with_those_that_have_one(cdi: Cdi, webserver_url: str) -> None:
    answer = cdi("relaunch", *PARTS, "--export-day", "2023-03-24", "--url", webserver_url)
    assert answer.exit_code == 1
    assert f"the snapshots that are partitions are from {FRIDAYS[0]} to {FRIDAYS[-1]}" in answer.stderr


def test_a_collection_without_assets_is_refused(cdi: Cdi, webserver_url: str) -> None:
    day = ("--export-day", str(YESTERDAY))
    answer = cdi("relaunch", "--collection", "other:things", *day, "--url", webserver_url)
    assert answer.exit_code == 1
    assert "has no assets of other:things" in answer.stderr


def test_a_webserver_that_is_not_there_is_named_with_how_to_start_it(cdi: Cdi) -> None:
    with reserved_port() as port:  # nobody listens on it
        answer = cdi("relaunch", *AUDIT, "--export-day", str(YESTERDAY), "--url", f"http://127.0.0.1:{port}")
    assert answer.exit_code == 1
    assert answer.stderr.startswith("WEBSERVER_UNAVAILABLE: Dagster's webserver at http://127.0.0.1:")
    assert "make dev" in answer.stderr
    assert "Owner: CDI on-call engineer." in answer.stderr
