"""The check that turns red when a day is late: no due day of the look-back is unpublished after its late time.

A day is published when its records and its tables are. The coalescer completion sensor reports it, also when nothing
runs; the daily job does not have it. Runs of a backfill and of the asset's page, where it cannot be left out, state
the same at their end, and the sensor reports it again while they are at work (`cdi_dagster.sensors.check_states`).
"""

from collections.abc import Callable
from datetime import datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.clock import utc_now
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.failures import CdiError
from cdi_dagster.published.read import read_mark
from cdi_dagster.published.tables import is_whole
from cdi_dagster.storage.interface import Storage, StorageError
from cdi_dagster.storage.roots import Roots


def on_time_check(
    collection: Collection,
    *,
    calendar: DayCalendar,
    automated: bool,
    clock: Callable[[], datetime] = utc_now,
) -> dg.AssetChecksDefinition:
    """Return the check of one collection.

    Args:
        collection: whose daily records.
        calendar: which days it looks at, and when they are late.
        automated: whether days are launched automatically; where not, only the day of the run is due.
        clock: aware, UTC.
    """

    @dg.asset_check(
        asset=names.daily_records_key(collection),
        name=names.ON_TIME_CHECK,
        additional_deps=names.table_keys(collection),
        description=f"Every storage day of the last {calendar.look_back_days} is published, records and tables, by "
        f"{calendar.late_time:%H:%M} UTC of its export day. Red as soon as one is late, also when nothing runs: the "
        "coalescer completion sensor reports it, "
        "with what the day waits for. Green again when all of them are published.",
    )
    def published_on_time(
        context: dg.AssetCheckExecutionContext, roots: dg.ResourceParam[Roots]
    ) -> dg.AssetCheckResult:
        run = context.op_execution_context
        # Without automation a person decides what a day is to have: its records, and tables that a run has came before.
        of_run = [parse_day(run.partition_key)] if run.has_partition_key else []
        is_published = is_whole if automated else _has_records
        days = [collection.on(day) for day in (calendar.late_days(clock()) if automated else of_run)]
        try:
            late = {day: why for day in days if (why := _why_late(roots.published, day, is_published))}
        except StorageError as error:
            return dg.AssetCheckResult(
                passed=False,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"It is not known, as storage does not answer; the sensor looks again. {error}",
            )
        description = (
            f"{len(late)} storage days are late: {', '.join(late.values())} (due by "
            f"{calendar.late_time:%H:%M} UTC, the last on {list(late)[-1].export_day}). The sensor's ticks show what "
            "they wait for."
            if late
            else None
        )
        return dg.AssetCheckResult(
            passed=not late,
            severity=dg.AssetCheckSeverity.ERROR,
            description=description,
            metadata={"late_days": len(late)},
        )

    return published_on_time


def _has_records(published: Storage, day: CollectionDay) -> bool:
    return read_mark(published, day) is not None


def _why_late(
    published: Storage, day: CollectionDay, is_published: Callable[[Storage, CollectionDay], bool]
) -> str | None:
    """Return the day in words where it is late. One whose mark is damaged is; that fails no run of another."""
    try:
        return None if is_published(published, day) else str(day.storage_day)
    except CdiError as error:
        return f"{day.storage_day} ({error})"
