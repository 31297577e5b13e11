"""The partitions: one for each storage day, in UTC. A partition exists as soon as its storage day is over."""

from datetime import date

import dagster as dg

from cdi_dagster.core.days import parse_day
from cdi_dagster.core.snapshot import first_snapshot_day


def storage_days(first_storage_day: date) -> dg.DailyPartitionsDefinition:
    """Return the daily partitions from the first storage day on; the key is the storage day, YYYY-MM-DD.

    No end offset: at 00:00 UTC yesterday's storage day becomes the youngest partition, which is when K2HB has moved on
    to the next prefix.
    """
    return dg.DailyPartitionsDefinition(start_date=first_storage_day.isoformat(), timezone="UTC")


def snapshot_fridays(first_storage_day: date) -> dg.WeeklyPartitionsDefinition:
    """Return the weekly partitions of snapshots; the key is the export day, a Friday, YYYY-MM-DD.

    The first has a whole week of storage days before it. A partition exists from 00:00 UTC of its Friday on (the end
    offset): Dagster's week of that name has only begun then, but the snapshot takes in the week *before* it
    (`week_before`).
    """
    first = first_snapshot_day(first_storage_day)
    return dg.WeeklyPartitionsDefinition(start_date=first.isoformat(), day_offset=5, timezone="UTC", end_offset=1)


def week_before() -> dg.TimeWindowPartitionMapping:
    """Return the mapping from a snapshot's partition to the storage days of the week before it, Friday to Thursday."""
    return dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)


def storage_day_in(context: dg.AssetExecutionContext) -> date:
    """Return the storage day that an asset works on."""
    return parse_day(context.partition_key)
