"""Asked many times, done once; and every day of the year has one owner at every moment."""

import os
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta

import dagster as dg
import pytest

from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.core.local_time import on_the_wall
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DAY, ScriptedSpark
from cdi_dagster_tests.gate.instigators import RECORDS, launched, publish_mark, run_as, schedule_tick, sensor_tick
from cdi_dagster_tests.gate.quick_ingestion import published_records
from cdi_dagster_tests.waiting import wait_until

DUE = datetime(2023, 3, 27, 9, 30, tzinfo=UTC)


class PatientSpark(ScriptedSpark):
    """Is at work until every other run of the day has ended."""

    others: int = 0

    def launch(self, context, step):
        ended = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)
        filters = dg.RunsFilter(tags={"dagster/partition": str(step.storage_day)}, statuses=list(ended))
        wait_until(lambda: context.instance.get_runs_count(filters) >= self.others, "the other runs have ended")
        return super().launch(context, step)


def _in_a_process_of_its_own(day, request):
    """Run as a run worker does: nothing shared but the instance's storage and the day's."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with dg.DagsterInstance.from_ref(day.instance.get_ref()) as day.instance:
                run_as(day, request) if request else day.run(*RECORDS)
            code = 0
        finally:
            os._exit(code)
    return child


@pytest.mark.slow  # a hundred ticks, and six runs in processes of their own
def test_fifty_rapid_evaluations_of_both_and_a_click_give_one_published_result(open_day):
    day = open_day
    requests = []
    for number in range(50):
        tick = schedule_tick(day, DUE) if number % 2 else sensor_tick(day, DUE + timedelta(minutes=5))
        requests += tick.run_requests
    assert len(requests) == 50
    assert len({request.run_key for request in requests}) == 1

    # Run keys hold back nothing here, as with daemons that look at the same moment: requests of both, and a click.
    asked = [*requests[:5], None]
    day.spark = PatientSpark(day.published)
    day.spark.others = len(asked) - 1
    day.use()
    children = [_in_a_process_of_its_own(day, request) for request in asked]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(asked)
    runs = day.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": str(DAY)}))
    outcomes = Counter(run.tags.get("cdi/failure_class", run.status.value) for run in runs)
    assert outcomes == {"SUCCESS": 1, "DUPLICATE_RUN": len(asked) - 1}
    assert published_records(day.published, AUDIT, DAY).total() == 10

    for minute in range(50):
        assert not sensor_tick(day, DUE + timedelta(minutes=6 + minute)).run_requests
    assert "published" in schedule_tick(day, DUE).skip_message


def test_a_day_that_a_backfill_submits_twice_is_ingested_once_and_by_another_backfill_again(open_day):
    day = open_day
    for backfill, outcome in (("one", None), ("one", "DUPLICATE_RUN"), ("two", None)):
        result = day.run(*RECORDS, tags={"dagster/backfill": backfill})
        run = day.instance.get_run_by_id(result.run_id)
        assert (result.success, run.tags.get("cdi/failure_class")) == (outcome is None, outcome)
    assert len(day.spark.launched) == 2


@pytest.mark.parametrize(
    "export_day",
    ["2023-03-26", "2023-10-29", "2024-02-29", "2024-03-01", "2024-01-01", "2023-04-30", "2023-05-01", "2024-12-31"],
)
def test_on_every_kind_of_day_the_tick_is_at_the_due_time_in_utc_and_the_sensor_follows(day, export_day):
    export = date.fromisoformat(export_day)
    storage_day = export - timedelta(days=1)
    due = datetime.combine(export, time(9, 30), tzinfo=UTC)
    day.status.state = CoalescerState.NOT_STARTED
    day.status.by_day[storage_day] = CoalescerState.COMPLETE
    schedule = day.definitions.get_repository_def().get_schedule_def("business_audit_daily_schedule")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 9 * * *", "UTC")
    assert launched(schedule_tick(day, due)) == [str(storage_day)]
    assert launched(schedule_tick(day, due, seconds_late=60)) == []
    for minutes, asked in ((-570, []), (-1, []), (0, []), (1, []), (2, [str(storage_day)]), (869, [str(storage_day)])):
        assert launched(sensor_tick(day, due + timedelta(minutes=minutes))) == asked


def test_a_missed_week_is_asked_for_oldest_first_and_what_is_older_is_left_alone(day):
    for n in range(30):
        day.put_object("0_9", storage_day=DAY - timedelta(days=n))
    asked = []
    while requests := sensor_tick(day, DUE + timedelta(hours=1)).run_requests:
        asked.append([request.partition_key for request in requests])
        for request in requests:
            publish_mark(day, date.fromisoformat(request.partition_key))
    week = [str(DAY - timedelta(days=n)) for n in range(6, -1, -1)]
    assert asked == [week[:3], week[3:6], week[6:]]


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("Europe/London", "09:30 GMT in winter and 10:30 BST in summer in Europe/London"),
        ("UTC", "09:30 UTC in UTC"),
        ("Australia/Sydney", "19:30 AEST in winter and 20:30 AEDT in summer in Australia/Sydney"),
    ],
)
def test_the_schedule_says_its_time_in_utc_and_by_local_clocks(zone, words, day):
    assert on_the_wall(time(9, 30), zone) == words
    schedule = day.definitions.get_repository_def().get_schedule_def("business_audit_daily_schedule")
    assert "at 09:30 UTC (09:30 GMT in winter and 10:30 BST in summer" in schedule.description
