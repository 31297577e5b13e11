"""The failed runs sensor: alerts on call of runs that failed and are not retried, once a cause; closes status rows.

Not a `@run_failure_sensor`: where an alert cannot be sent, that one continues with the next run, and no alert is ever
sent. What was done about a run is kept in tags of the run, so neither a failed tick nor a lost cursor sends it twice.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import dagster as dg

from cdi_dagster import names
from cdi_dagster.clock import utc_now
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.interfaces import AlertSink, CoalescerStatusSource, StatusTable
from cdi_dagster.own_tags import own_tag
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.run_records import makes_snapshot, touches
from cdi_dagster.sensors.alerted_causes import REMINDS_FOR, alerted_causes, ended_lately, is_alerted
from cdi_dagster.sensors.failure_report import FailedRun, FailureReporter
from cdi_dagster.sensors.run_progress import BEGUN, report_progress
from cdi_dagster.storage.roots import Roots

INTERVAL_SECONDS = 30
MOST_PER_TICK = 20
"""The failures of a month's backfill are reported over a few ticks; Dagster allows a tick one minute."""
LOOKS_BACK = timedelta(hours=24)
"""Runs that changed within this time are read; those that ran when the daemon stopped fail once it is back."""


def failed_runs_sensor(
    collections: Sequence[Collection],
    *,
    calendar: DayCalendar,
    running: bool,
    clock: Callable[[], datetime] = utc_now,
) -> dg.SensorDefinition:
    """Return the sensor, one for all collections.

    Args:
        collections: whose runs.
        calendar: which days automation looks at; it does not retry older ones.
        running: whether it is on by default.
        clock: aware, UTC.
    """

    @dg.sensor(
        name=names.FAILED_RUNS_SENSOR,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        description="Alerts on call of a run that failed, with class, cause, owner and next step: at once where only a "
        "person can fix it, else when it is not retried any more; for a closed gate only once its day is late. Runs "
        "that fail for one cause (class, collection, backfill) are one alert, one more each day while it goes on, and "
        "one when it is over. "
        "With CDI_ALERT_ON also when automated runs begin and succeed. "
        "Closes the status row of a run whose worker was killed.",
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        coalescer_status: dg.ResourceParam[CoalescerStatusSource],
        roots: dg.ResourceParam[Roots],
        status_table: dg.ResourceParam[StatusTable],
        alerts: dg.ResourceParam[AlertSink],
        options: IngestOptions,
    ) -> dg.SkipReason:
        now = clock()
        reporter = FailureReporter(
            instance=context.instance,
            coalescer_status=coalescer_status,
            roots=roots,
            status_table=status_table,
            alerts=alerts,
            options=options,
            automation=Automation(calendar=calendar),
            log=context.log.warning,
        )
        looked_up = [reporter.look_up(run, found, now) for run, found in _unreported(context, collections, now)]
        failed = [each for each in looked_up if isinstance(each, FailedRun)]
        reports = [each for each in looked_up if isinstance(each, str)]
        reports += reporter.report(failed, now)
        reports += reporter.follow_up(alerted_causes(context.instance, collections, _alerted(context, now)), now)
        if options.alert_kinds:
            begun = _begun(context, now)
            reports += report_progress(context.instance, begun, collections, alerts, options)
        return dg.SkipReason("\n".join(reports) or "There is no failed run that is not reported yet.")

    return sensor


def _unreported(
    context: dg.SensorEvaluationContext, collections: Sequence[Collection], now: datetime
) -> list[tuple[dg.DagsterRun, list[Collection]]]:
    """Return the runs of this code location that failed and are not dealt with yet, oldest first."""
    ended = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    filters = dg.RunsFilter(statuses=ended, updated_after=now - LOOKS_BACK)
    runs = [record.dagster_run for record in context.instance.get_run_records(filters, ascending=True)]
    left = [
        (run, found)
        for run in runs
        if not (_is_reported(run) and own_tag(run, names.ROW_CLOSED_TAG)) and _is_of_this_location(context, run)
        # Other runs in this code location are not ours to report.
        if (found := [each for each in collections if touches(run, each) or makes_snapshot(run, each)])
    ]
    # First those without an alert: rows that cannot be closed must not delay them.
    return sorted(left, key=lambda each: _is_reported(each[0]))[:MOST_PER_TICK]


def _begun(context: dg.SensorEvaluationContext, now: datetime) -> list[dg.DagsterRun]:
    """Return the runs of this code location that began, oldest first."""
    filters = dg.RunsFilter(statuses=list(BEGUN), updated_after=now - LOOKS_BACK)
    records = context.instance.get_run_records(filters, ascending=True)
    return [
        record.dagster_run
        for record in records
        if record.start_time and _is_of_this_location(context, record.dagster_run)
    ]


def _alerted(context: dg.SensorEvaluationContext, now: datetime) -> list[dg.DagsterRun]:
    """Return the runs of which an alert was sent, and not yet that its cause is over, oldest first."""
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=now - REMINDS_FOR)
    records = context.instance.get_run_records(filters, ascending=True)
    runs = [record.dagster_run for record in records if ended_lately(record, now)]
    return [run for run in runs if is_alerted(run) and _is_of_this_location(context, run)]


def _is_reported(run: dg.DagsterRun) -> bool:
    return own_tag(run, names.ALERT_TAG) is not None


def _is_of_this_location(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    if run.remote_job_origin is None or context.code_location_origin is None:
        return True
    of_run = run.remote_job_origin.repository_origin.code_location_origin.location_name
    return of_run == context.code_location_origin.location_name
