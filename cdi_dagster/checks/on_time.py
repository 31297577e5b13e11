"""The check that turns red when a day is late: no due day of the look-back is unpublished after its late time.

Evaluated in every run, and by the coalescer completion sensor, which also looks when nothing runs.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of, latest_due_storage_day, parse_day, storage_days_between
from cdi_dagster.published.read import read_mark
from cdi_dagster.storage.roots import Roots


def on_time_check(
    collection: Collection,
    *,
    first_storage_day: date,
    late_time: time,
    look_back_days: int,
    automated: bool,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> dg.AssetChecksDefinition:
    """Return the check of one collection.

    Args:
        collection: whose daily records.
        first_storage_day: the first partition.
        late_time: when (UTC, on the export day) an unpublished day is late.
        look_back_days: how many days it looks at.
        automated: whether days are launched by themselves; where they are not, none is due but the one that is run.
        clock: aware, UTC.
    """

    @dg.asset_check(
        asset=names.daily_records_key(collection),
        name=names.ON_TIME_CHECK,
        description=f"Every storage day of the last {look_back_days} is published by {late_time:%H:%M} UTC of its "
        "export day. Red as soon as one is late, also where nothing runs: the coalescer completion sensor reports it, "
        "with what the day waits for. Green again when all of them are published.",
    )
    def published_on_time(
        context: dg.AssetCheckExecutionContext, roots: dg.ResourceParam[Roots]
    ) -> dg.AssetCheckResult:
        last = latest_due_storage_day(clock(), late_time)
        first = max(first_storage_day, last - timedelta(days=look_back_days - 1))
        days = storage_days_between(first, last)
        if not automated:
            run = context.op_execution_context
            days = [parse_day(run.partition_key)] if run.has_partition_key else []
        late = [day for day in days if read_mark(roots.published, collection.on(day)) is None]
        description = (
            f"{len(late)} storage days are late: {', '.join(map(str, late))} (due by {late_time:%H:%M} UTC, the last "
            f"on {export_day_of(late[-1])}). The sensor's ticks say what they wait for."
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
