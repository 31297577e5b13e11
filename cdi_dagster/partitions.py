"""The partitions: one for each storage day, in UTC. A partition exists as soon as its storage day is over."""

from datetime import date

import dagster as dg

from cdi_dagster.core.days import parse_day


def storage_days(first_storage_day: date) -> dg.DailyPartitionsDefinition:
    """Return the daily partitions from the first storage day on; the key is the storage day, YYYY-MM-DD.

    No end offset: at 00:00 UTC yesterday's storage day becomes the youngest partition, which is when K2HB has moved on
    to the next prefix.
    """
    return dg.DailyPartitionsDefinition(start_date=first_storage_day.isoformat(), timezone="UTC")


def storage_day_in(context: dg.AssetExecutionContext) -> date:
    """Return the storage day that an asset works on."""
    return parse_day(context.partition_key)
