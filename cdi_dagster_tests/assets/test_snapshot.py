"""The snapshot asset and its sensor: one launch a Friday once its days are there, its status row, and being late."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus
from freezegun import freeze_time

from cdi_dagster.core.alert import AlertLevel
from cdi_dagster.core.failures import FAILURE_GUIDE, CdiError, FailureClass
from cdi_dagster.core.storage_keys import (
    is_tables_report_key,
    runs_prefix,
    snapshot_lease_key,
    snapshot_tables_lease_key,
)
from cdi_dagster.ingestion.ingestion_lease import snapshot_lease, snapshot_tables_lease
from cdi_dagster.interfaces import LaunchAttempt
from cdi_dagster.published.snapshots import snapshot_of
from cdi_dagster.resources.status_table import FileStatusTable
from cdi_dagster.table_definitions import with_tables
from cdi_dagster_tests.dagster_day import DagsterDay, argument, checks_of, failure_of, metadata_of
from cdi_dagster_tests.instance import instance_on_disk
from cdi_dagster_tests.killed_worker import KillsItsWorker
from cdi_dagster_tests.scripted_snapshot import PARTS, ScriptedSnapshots, make_snapshot, publish_days

FIRST_DAY, FRIDAY, NEXT = date(2023, 6, 2), date(2023, 6, 9), date(2023, 6, 16)
THURSDAY = date(2023, 6, 8)
KILLED_AT = datetime(2023, 6, 9, 11, tzinfo=UTC)
ASSET = "calculation_parts/snapshot"
TABLES = with_tables(PARTS, {}).snapshot_table_names


@pytest.fixture
def day(tmp_path: Path) -> Iterator[DagsterDay]:
    with instance_on_disk() as instance:
        found = DagsterDay(tmp_path, instance, first_storage_day=FIRST_DAY, look_back_days=14)
        found.spark = ScriptedSnapshots(found.published)
        found.use(step_launcher=found.spark)
        yield found


def run(day, export_day=FRIDAY, assets=None, **tags):
    return day.definitions.resolve_job_def("calculation_parts_snapshot").execute_in_process(
        partition_key=export_day.isoformat(),
        instance=day.instance,
        raise_on_error=False,
        tags=tags,
        asset_selection=[dg.AssetKey.from_user_string(name) for name in assets] if assets else None,
    )


def tick(day, at, cursor=None, name="calculation_parts_snapshot_sensor"):
    repository = day.definitions.get_repository_def()
    context = dg.build_sensor_context(
        instance=day.instance, repository_def=repository, resources=day.instigator_resources, cursor=cursor
    )
    with freeze_time(at):
        return repository.get_sensor_def(name).evaluate_tick(context)


def failed_runs_tick(day, at):
    return tick(day, at, name="failed_runs_sensor").skip_message


def shown(day):
    """Return of which Friday the report is that was written last for each table."""
    found = {}
    reports = [
        stored
        for friday in (FRIDAY, NEXT)
        for stored in day.published.list(runs_prefix(snapshot_of(PARTS, friday)))
        if is_tables_report_key(stored.key)
    ]
    for stored in sorted(reports, key=lambda stored: stored.modified_at):
        report = json.loads(day.published.read(stored.key))
        found |= {table["name"]: report["export_day"] for table in report["tables"]}
    return found


def launched(day, request):
    names = [key.to_user_string() for key in request.asset_selection or ()]
    return run(day, date.fromisoformat(request.partition_key), names, **request.tags)


def test_a_snapshot_is_one_launch_with_its_figures_on_the_page(day):
    publish_days(day.published, FIRST_DAY, THURSDAY)
    day.spark.stale_later = (str(NEXT),)
    metadata = metadata_of(run(day), ASSET)
    step, tables = day.spark.launched
    assert (step.is_followed, tables.name) == (True, "publish_tables")
    assert (argument(step, "--export-day"), argument(step, "--first-storage-day")) == ("2023-06-09", "2023-06-02")
    assert (step.storage_day, step.input_bytes) == (THURSDAY, 70)
    assert (metadata["dagster/row_count"], metadata["rows_deleted"], metadata["rows_read"]) == (5, "2", "7")
    assert metadata["stale_later_snapshots"] == "2023-06-16"
    assert metadata["storage_days"].startswith("2023-06-02, ")


def test_what_a_launch_on_a_cluster_spent_is_on_the_snapshot_and_on_the_first_of_its_tables(day):
    publish_days(day.published, FIRST_DAY, THURSDAY)
    spent = {"estimated_instance_hours": 0.1, "estimated_cost_usd": 0.5}
    day.spark.attempt = LaunchAttempt(where="j-1", outcome="COMPLETED", seconds=90, detail=spent)
    result = run(day)
    of_assets = [metadata_of(result, ASSET)]
    of_assets += [metadata_of(result, f"calculation_parts/{table.partition('.')[2]}") for table in TABLES]
    assert [metadata.get("cluster_minutes") for metadata in of_assets] == [1.5, 1.5, None, None]
    assert [metadata.get("cost_usd") for metadata in of_assets] == [0.5, 0.5, None, None]


def test_the_status_row_has_the_snapshots_prefix_while_it_is_made_and_afterwards(day):
    publish_days(day.published, FIRST_DAY, THURSDAY)
    result = run(day)
    prefix = "corporate_data_ingestion/exports/calculator/calculationParts/2023-06-09/"
    assert [(row.status, row.snapshot_prefix, str(row.export_day)) for row in day.rows.writes] == [
        ("IN_PROGRESS", prefix, "2023-06-09"),
        ("IN_PROGRESS", prefix, "2023-06-09"),
        ("IN_PROGRESS", prefix, "2023-06-09"),
        ("COMPLETED", prefix, "2023-06-09"),
    ]
    row = day.rows.get(result.run_id, "CDI-calculator:calculationParts")
    assert (row.current_step, row.detail["rows"]) == ("publish_tables", {"DELETE": 2, "INSERT": 3})


def test_days_that_are_missing_stop_it_before_a_launch(day):
    publish_days(day.published, FIRST_DAY, date(2023, 6, 6))
    failure = failure_of(run(day))
    assert failure["failure_class"] == "INPUT_INVALID"
    assert "2023-06-07, 2023-06-08" in failure["cause"]
    assert "calculation_parts/daily_rows" in failure["next_step"]
    assert day.spark.launched == []
    assert day.rows.writes[-1].status == "FAILED"


def test_a_snapshot_that_another_process_makes_is_not_made_beside_it(day):
    publish_days(day.published, FIRST_DAY, THURSDAY)
    with snapshot_lease(day.published, snapshot_of(PARTS, FRIDAY), holder="cdi snapshot"):
        failure = failure_of(run(day))
    assert failure["failure_class"] == "DUPLICATE_RUN"
    assert "making the snapshot of calculator:calculationParts for 2023-06-09" in failure["cause"]


def test_the_sensor_makes_each_friday_once_when_its_last_day_is_there(day):
    noon = datetime(2023, 6, 9, 11, tzinfo=UTC)
    publish_days(day.published, FIRST_DAY, date(2023, 6, 7))
    assert tick(day, noon).skip_message == "2023-06-09: waits for the daily rows of 2023-06-08"
    publish_days(day.published, THURSDAY, THURSDAY)
    (request,) = tick(day, noon).run_requests
    assert request.partition_key == "2023-06-09"
    assert request.tags["cdi/export_day"] == "2023-06-09"
    assert run(day, **request.tags).success
    assert tick(day, noon).skip_message == "2023-06-09: published"


def test_the_sensor_makes_a_stale_snapshot_again_once_and_then_the_next(day):
    at = datetime(2023, 6, 16, 13, tzinfo=UTC)  # it would be late
    publish_days(day.published, FIRST_DAY, date(2023, 6, 15))
    assert [run(day, friday).success for friday in (FRIDAY, NEXT)] == [True, True]
    assert not tick(day, at).run_requests
    publish_days(day.published, date(2023, 6, 5), date(2023, 6, 5), fingerprint="late")
    made = []
    for _ in range(3):
        requests = tick(day, at).run_requests
        for request in requests:
            made.append(request.partition_key)
            assert launched(day, request).success
            assert shown(day) == dict.fromkeys(TABLES, str(NEXT))
    assert made == ["2023-06-09", "2023-06-16"]


def test_an_older_snapshot_that_is_made_after_a_newer_one_leaves_the_tables_alone(day):
    before, at = datetime(2023, 6, 9, 11, tzinfo=UTC), datetime(2023, 6, 16, 11, tzinfo=UTC)
    publish_days(day.published, FIRST_DAY, date(2023, 6, 15))
    (request,) = tick(day, before).run_requests
    assert request.asset_selection is None
    assert launched(day, request).success
    publish_days(day.published, date(2023, 6, 5), date(2023, 6, 5), fingerprint="late")
    (again,) = tick(day, at).run_requests
    assert (again.partition_key, again.asset_selection) == (str(FRIDAY), None)  # no newer one is there
    day.spark.failure = CdiError(FailureClass.CLUSTER_LOST, "Its cluster is gone.")
    with freeze_time(at):
        assert not launched(day, again).success
    day.spark.failure = None
    (request,) = tick(day, at).run_requests
    assert request.partition_key == str(NEXT)
    assert launched(day, request).success
    (request,) = tick(day, at + timedelta(minutes=30)).run_requests
    assert (request.partition_key, [key.to_user_string() for key in request.asset_selection]) == (str(FRIDAY), [ASSET])
    assert launched(day, request).success
    assert shown(day) == dict.fromkeys(TABLES, str(NEXT))
    assert not tick(day, at + timedelta(minutes=30)).run_requests


def test_tables_that_a_person_set_back_to_an_older_snapshot_are_made_from_the_newest_again(day):
    at = datetime(2023, 6, 16, 13, tzinfo=UTC)  # it would be late
    publish_days(day.published, FIRST_DAY, date(2023, 6, 15))
    assert [run(day, friday).success for friday in (FRIDAY, NEXT)] == [True, True]
    for _ in range(4):  # as often as a person does
        assert run(day, FRIDAY).success
        assert shown(day) == dict.fromkeys(TABLES, str(FRIDAY))
        (request,) = tick(day, at).run_requests
        assert (request.partition_key, len(request.asset_selection)) == (str(NEXT), len(TABLES))
        assert launched(day, request).success
        assert shown(day) == dict.fromkeys(TABLES, str(NEXT))
        assert not tick(day, at).run_requests
    assert day.alerts.sent == []


def test_a_failed_snapshot_is_left_to_a_person_where_a_rerun_does_not_help(day):
    publish_days(day.published, FIRST_DAY, THURSDAY)
    (request,) = tick(day, datetime(2023, 6, 9, 11, tzinfo=UTC)).run_requests
    day.spark.failure = CdiError(FailureClass.JOB_FAILED, "It failed.")
    assert not run(day, **request.tags).success
    assert "a re-run does not fix" in tick(day, datetime(2023, 6, 9, 11, 30, tzinfo=UTC)).skip_message


def test_a_late_snapshot_sends_one_alert_and_one_when_it_is_there(day):
    publish_days(day.published, FIRST_DAY, date(2023, 6, 7))
    late = datetime.combine(FRIDAY, day.settings.late_time, tzinfo=UTC)
    cursor = tick(day, late - timedelta(seconds=1)).cursor
    assert day.alerts.sent == []
    day.alerts.refuse = True
    cursor = tick(day, late, cursor).cursor
    day.alerts.refuse = False
    for _ in range(2):
        cursor = tick(day, late, cursor).cursor
    publish_days(day.published, THURSDAY, THURSDAY)
    assert run(day).success
    for _ in range(2):
        cursor = tick(day, late, cursor).cursor
    assert [(alert.kind, alert.key) for alert in day.alerts.sent] == [
        ("LATE", "calculator:calculationParts|snapshot of 2023-06-09"),
        ("LATE_OVER", "calculator:calculationParts|snapshot of 2023-06-09"),
    ]
    assert "waits for the daily rows of 2023-06-08" in day.alerts.sent[0].text
    assert day.alerts.sent[0].level is AlertLevel.ERROR


def test_a_late_snapshot_that_is_being_made_is_a_warning_with_nothing_to_do(day):
    publish_days(day.published, FIRST_DAY, THURSDAY)
    late = datetime.combine(FRIDAY, day.settings.late_time, tzinfo=UTC)
    assert tick(day, late).run_requests
    (alert,) = day.alerts.sent
    assert (alert.level, alert.next_step) == (AlertLevel.WARNING, "Nothing, while it is being made.")
    assert alert.text == "its days are there. It is being made."


def test_a_failed_snapshot_is_alerted_like_a_day_not_as_late_too_and_reported_over(day):
    publish_days(day.published, FIRST_DAY, THURSDAY)
    noon = datetime(2023, 6, 9, 11, tzinfo=UTC)
    (request,) = tick(day, noon).run_requests
    day.spark.failure = CdiError(FailureClass.JOB_FAILED, "It broke.", next_step="Report it.")
    with freeze_time(noon):
        run_id = run(day, **request.tags).run_id
    assert f"Run {run_id}: JOB_FAILED; alert sent" in failed_runs_tick(day, noon)
    (alert,) = day.alerts.sent
    assert (alert.kind, alert.failure_class, alert.next_step) == ("FAILED", "JOB_FAILED", "Report it.")
    assert alert.title == "JOB_FAILED: the snapshot of calculator:calculationParts for 2023-06-09 failed"
    assert alert.text.startswith(f"It broke. Automatically: nothing: run {run_id} failed with JOB_FAILED")
    assert (alert.storage_days, alert.run_url) == ((THURSDAY,), f"http://127.0.0.1:3000/runs/{run_id}")
    cursor = None
    for hours in (0, 6, 12):
        at = noon + timedelta(hours=hours)
        cursor = tick(day, at, cursor).cursor
        assert "There is no failed run" in failed_runs_tick(day, at)
    assert len(day.alerts.sent) == 1
    assert failed_runs_tick(day, noon + timedelta(days=1)).startswith("Reminder sent: snapshot of calculator:")
    day.spark.failure = None
    assert run(day).success
    failed_runs_tick(day, noon + timedelta(days=1))
    tick(day, noon + timedelta(days=1), cursor)
    assert [(each.kind, each.title) for each in day.alerts.sent[1:]] == [
        ("FAILED", f"Still: {alert.title}"),
        ("FAILED_OVER", "No longer failed: JOB_FAILED: the snapshot of calculator:calculationParts for 2023-06-09"),
    ]


def test_the_page_of_a_failed_snapshot_promises_a_retry_only_where_its_sensor_is_on(day):
    publish_days(day.published, FIRST_DAY, THURSDAY)
    day.spark.failure = CdiError(FailureClass.CLUSTER_LOST, "Its cluster is gone.")
    location = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("cdi"), "__repository__")
    sensor = RemoteInstigatorOrigin(location, "calculation_parts_snapshot_sensor")

    def what_happens(status):
        state = InstigatorState(sensor, InstigatorType.SENSOR, status)
        is_new = not day.instance.all_instigator_state()
        (day.instance.add_instigator_state if is_new else day.instance.update_instigator_state)(state)
        with freeze_time(KILLED_AT):
            return failure_of(run(day))["what_happens_by_itself"]

    assert what_happens(InstigatorStatus.RUNNING) == FAILURE_GUIDE[FailureClass.CLUSTER_LOST].by_itself
    assert what_happens(InstigatorStatus.STOPPED) == "Nothing: materialise the snapshot when the cause is fixed."


def test_a_snapshot_that_automation_makes_again_is_alerted_only_when_its_retries_are_used_up(day):
    publish_days(day.published, FIRST_DAY, THURSDAY)
    day.spark.failure = CdiError(FailureClass.CLUSTER_LOST, "Its cluster is gone.")
    for attempt in range(3):
        at = datetime(2023, 6, 9, 9, 40, tzinfo=UTC) + attempt * timedelta(minutes=30)
        (request,) = tick(day, at).run_requests
        with freeze_time(at):
            assert not run(day, **request.tags).success
        line = failed_runs_tick(day, at)
        assert ("no alert is sent: run" in line) is (attempt < 2)
    assert [alert.kind for alert in day.alerts.sent] == ["FAILED"]


@pytest.fixture
def killed(day, tmp_path):
    """The run of a Friday, at 11:00 of it, whose worker was killed, and the status table."""
    return run_that_is_killed(day, tmp_path, None)


def run_that_is_killed(day, folder, after):
    publish_days(day.published, FIRST_DAY, THURSDAY)
    day.rows = FileStatusTable(folder / "rows")
    day.use(step_launcher=KillsItsWorker(day.spark, after))
    child = os.fork()
    if child == 0:
        at = freeze_time(KILLED_AT - timedelta(minutes=1))
        with at, dg.DagsterInstance.from_ref(day.instance.get_ref()) as day.instance:
            run(day)
    os.waitpid(child, 0)
    day.use(step_launcher=day.spark)
    (killed,) = day.instance.get_runs()
    with freeze_time(KILLED_AT):
        day.instance.report_run_failed(killed, "Detected run worker status UNHEALTHY")
    return killed


@pytest.mark.kill
def test_the_row_of_a_killed_snapshot_is_closed_and_keeps_its_prefix(day, killed):
    assert "WORKER_LOST; no alert is sent" in failed_runs_tick(day, KILLED_AT)
    row = day.rows.get(killed.run_id, "CDI-calculator:calculationParts")
    assert (row.status, row.current_step) == ("FAILED", "build_snapshot")
    assert row.failure == "WORKER_LOST: Dagster reports: Detected run worker status UNHEALTHY"
    assert row.snapshot_prefix == "corporate_data_ingestion/exports/calculator/calculationParts/2023-06-09/"


@pytest.mark.kill
@pytest.mark.parametrize("has_tables", [False, True])
def test_a_snapshot_that_the_cluster_of_a_lost_run_published_is_run_again_until_dagster_has_it(day, killed, has_tables):
    day.published.delete([snapshot_lease_key(snapshot_of(PARTS, FRIDAY))])  # it ends by itself, minutes later
    make_snapshot(day.published, FRIDAY, first_storage_day=FIRST_DAY, correlation_id=killed.run_id)
    if has_tables:
        keys = [f"calculation_parts/{table.partition('.')[2]}" for table in TABLES]
        with freeze_time(KILLED_AT - timedelta(hours=1)):
            assert run(day, assets=keys).success
    assert "no alert is sent" in failed_runs_tick(day, KILLED_AT)
    (request,) = tick(day, KILLED_AT + timedelta(minutes=11)).run_requests
    because = f"again: run {killed.run_id} published it, and failed with WORKER_LOST before that was recorded"
    assert request.tags["cdi/launched_because"] == because
    assert request.asset_selection is None
    with freeze_time(KILLED_AT + timedelta(minutes=11)):
        result = launched(day, request)
    assert result.success
    assert day.rows.get(result.run_id, "CDI-calculator:calculationParts").status == "COMPLETED"
    # Its step may also have found that of the lost run done, and left the mark as it is.
    make_snapshot(day.published, FRIDAY, first_storage_day=FIRST_DAY, correlation_id=killed.run_id)
    assert not tick(day, KILLED_AT + timedelta(minutes=22)).run_requests


@pytest.mark.kill
def test_tables_of_a_snapshot_that_a_lost_run_published_are_published_again_until_dagster_has_them(day, tmp_path):
    killed = run_that_is_killed(day, tmp_path, "publish_tables")
    assert "no alert is sent: published: run" in failed_runs_tick(day, KILLED_AT)
    (request,) = tick(day, KILLED_AT + timedelta(minutes=11)).run_requests
    because = f"again: run {killed.run_id} published it, and failed with WORKER_LOST before that was recorded"
    assert (request.tags["cdi/launched_because"], len(request.asset_selection)) == (because, 3)
    of_friday = snapshot_of(PARTS, FRIDAY)  # leases end by themselves, minutes later
    day.published.delete([snapshot_lease_key(of_friday), snapshot_tables_lease_key(PARTS)])
    with freeze_time(KILLED_AT + timedelta(minutes=11)):
        assert launched(day, request).success
    assert not tick(day, KILLED_AT + timedelta(minutes=22)).run_requests


def test_tables_of_the_newest_snapshot_that_are_missing_are_made_alone(day):
    at = datetime(2023, 6, 16, 11, tzinfo=UTC)
    publish_days(day.published, FIRST_DAY, date(2023, 6, 15))
    assert [run(day, friday, [ASSET]).success for friday in (FRIDAY, NEXT)] == [True, True]
    (request,) = tick(day, at).run_requests
    assert (request.partition_key, len(request.asset_selection)) == ("2023-06-16", 3)
    assert ASSET not in {key.to_user_string() for key in request.asset_selection}
    alone = "calculation_parts/src_childcare_entitlement"
    assert run(day, NEXT, [alone]).success
    assert argument(day.spark.launched[-1], "--tables") == "src_childcare_entitlement"
    message = next(iter(tick(day, at).run_requests)).tags["cdi/launched_because"]
    assert "src_calculator_parts" in message
    assert "src_childcare_entitlement" not in message
    names = [key.to_user_string() for key in request.asset_selection]
    assert run(day, NEXT, names, **request.tags).success
    assert not tick(day, at).run_requests


def test_tables_need_the_snapshot_of_their_friday(day):
    failure = failure_of(run(day, FRIDAY, ["calculation_parts/src_calculator_parts"]))
    assert failure["failure_class"] == "INPUT_INVALID"
    assert "calculation_parts/snapshot" in failure["next_step"]


def test_tables_wait_for_those_of_another_friday_that_another_process_publishes(day):
    publish_days(day.published, FIRST_DAY, THURSDAY)
    with ExitStack() as other:
        other.enter_context(snapshot_tables_lease(day.published, snapshot_of(PARTS, NEXT), holder="cdi snapshot"))
        ends = threading.Timer(4, other.pop_all().close)
        ends.start()
        assert run(day).success
        assert not ends.is_alive()
    assert [step.name for step in day.spark.launched] == ["build_snapshot", "publish_tables"]


def test_the_checks_see_lost_days_and_id_parts_that_fell(day):
    publish_days(day.published, FIRST_DAY, date(2023, 6, 15))
    first = checks_of(run(day))
    assert {name: each.passed for name, each in first.items()} == {
        "snapshot_is_fresh": True,
        "id_parts_do_not_fall": True,
    }
    assert first["id_parts_do_not_fall"].metadata["compared_with"].value == "none before it"
    day.spark.id_parts = {"0a": 4, "0b": 9}
    day.spark.modified = {THURSDAY: 3, date(2023, 6, 15): 2}
    second = checks_of(run(day, NEXT))
    assert "'0a' from 5 to 4" in second["id_parts_do_not_fall"].description
    assert "2023-06-09, 2023-06-10" in second["snapshot_is_fresh"].description
    assert {each.passed for each in second.values()} == {False}
