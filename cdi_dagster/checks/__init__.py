"""Asset checks: does what was published add up. They read storage, not what the asset said of itself."""

from collections.abc import Iterable

import dagster as dg

from cdi_dagster.checks.daily_records import daily_records_checks
from cdi_dagster.core.collections import Collection


def build_checks(collections: Iterable[Collection]) -> list[dg.AssetChecksDefinition]:
    """Return the checks of every collection's assets."""
    return [check for collection in collections for check in daily_records_checks(collection)]
