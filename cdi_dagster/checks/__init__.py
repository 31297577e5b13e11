"""Asset checks: does what was published add up. They read storage, not what the asset said of itself."""

from collections.abc import Iterable
from datetime import date, time

import dagster as dg

from cdi_dagster.checks.daily_records import daily_records_checks
from cdi_dagster.checks.on_time import on_time_check
from cdi_dagster.core.collections import Collection


def build_checks(
    collections: Iterable[Collection], *, first_storage_day: date, late_time: time, look_back_days: int, automated: bool
) -> list[dg.AssetChecksDefinition]:
    """Return the checks of every collection's assets."""
    checks: list[dg.AssetChecksDefinition] = []
    for collection in collections:
        checks += daily_records_checks(collection)
        checks.append(
            on_time_check(
                collection,
                first_storage_day=first_storage_day,
                late_time=late_time,
                look_back_days=look_back_days,
                automated=automated,
            )
        )
    return checks
