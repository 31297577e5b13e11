"""Asset checks: whether what was published adds up. They read storage, not what the asset reported."""

from collections.abc import Iterable

import dagster as dg

from cdi_dagster.checks.daily_records import daily_records_checks
from cdi_dagster.checks.on_time import on_time_check
from cdi_dagster.checks.snapshot import snapshot_checks
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.day_calendar import DayCalendar


def build_checks(
    collections: Iterable[Collection], *, calendar: DayCalendar, automated: bool, most_fall_percent: float
) -> list[dg.AssetChecksDefinition]:
    """Return the checks of every collection's assets."""
    checks: list[dg.AssetChecksDefinition] = []
    for collection in collections:
        checks += daily_records_checks(collection)
        checks.append(
            on_time_check(
                collection,
                calendar=calendar,
                automated=automated,
            )
        )
        if collection.is_keyed:
            checks += snapshot_checks(collection, most_fall_percent=most_fall_percent)
    return checks
