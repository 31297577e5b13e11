"""Names that several modules of the Dagster side share: asset keys, jobs, pools, tags, owners.

No logic and no resources. `docs/naming.md` is the grammar.
"""

import dagster as dg

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.table_definition import Table

OWNERS = ("team:corporate-data-ingestion",)

PARTITION_TAG = "dagster/partition"
DATA_VERSION_TAG = "dagster/data_version"
"""On a materialisation: `dagster.DataVersion`."""
RETRY_TAG = "dagster/retry_number"
"""On Dagster's own retry of a run whose worker was lost."""
PRIORITY_TAG = "dagster/priority"
"""In the queue of runs and in the pools; a backfill has 0."""
LAUNCH_TAG = "cdi/launch"
"""What a run was launched for: storage day and what the coalescer left (`core.launch_decision.launch_of`)."""
LAUNCHED_BY_TAG = "cdi/launched_by"
"""`schedule` or `sensor`; a run without it was requested by a person."""
FAILURE_CLASS_TAG = "cdi/failure_class"
LISTING_TAG = "cdi/listing"
"""On a run that failed with OFFSETS_LOST: fingerprint of the listing that lacks them."""
LAUNCHED_BECAUSE_TAG = "cdi/launched_because"
"""On a run of the schedule or the sensor: the reason of the decision, for the person who reads the list of runs."""
COLLECTION_TAG = "cdi/collection"
"""Of assets and runs: the collection, with a dot for the colon."""
EXPORT_DAY_TAG = "cdi/export_day"
"""On every run, for the person who reads the list of runs; the partition is the storage day."""
NEEDS_NO_COMPUTE_TAG = ".dagster/cdi_needs_no_compute"
"""Hidden in the UI, as every tag `.dagster/…`. The last step of the run is over: it only has checks to evaluate."""
ALERT_TAG = "cdi/told"
"""On a failed run: whether an alert was sent, and why."""
CAUSE_TAG = "cdi/alert_cause"
"""On a failed run that was alerted, by itself or with others: what these have in common."""
ALERTED_AT_TAG = "cdi/alerted_at"
"""On a failed run that the last alert of its cause named: when that was sent."""
OVER_TAG = "cdi/alert_over"
"""On a failed run that was alerted: that its cause is over was sent too."""
STARTED_TAG = "cdi/started_sent"
COMPLETED_TAG = "cdi/completed_sent"
"""On an automated run: the optional alert was sent (`CDI_ALERT_ON`)."""
BACKFILL_TAG = "dagster/backfill"
ROW_CLOSED_TAG = ".dagster/cdi_row_closed"
"""Hidden in the UI. On a failed run: its status row is no longer IN_PROGRESS."""
WILL_RETRY_TAG = "dagster/will_retry"
"""On a run whose worker was lost: whether Dagster itself runs it again."""
FAILED_RUNS_SENSOR = "failed_runs_sensor"
METRICS_SENSOR = "metrics_sensor"
ON_TIME_CHECK = "published_on_time"
REJECTS_CHECK = "nothing_rejected"
COUNTS_CHECK = "counts_reconcile"
ID_PARTS_CHECK = "id_parts_are_hexadecimal"
CHECKED_DAY = "storage_day"
"""Metadata of a check's evaluation: of which day it is …"""
CHECKED_RUN = "of_run"
"""… and of which run's publication, or failure."""
LOCAL_METASTORE_POOL = "cdi_local_metastore"
"""The local Hive metastore allows one process at a time; a snapshot's tables take turns on EMR, too."""


def collection_tag(collection: Collection) -> dict[str, str]:
    """Return the tag that names a collection."""
    return {COLLECTION_TAG: collection.id.replace(":", ".")}


def input_key(collection: Collection) -> dg.AssetKey:
    """Asset key of a collection's pinned input."""
    return dg.AssetKey(["corporate_storage", collection.asset_name])


def coalesced_key(collection: Collection) -> dg.AssetKey:
    """Asset key of a collection's coalesced days, where Dagster coalesces."""
    return dg.AssetKey(["corporate_storage", f"{collection.asset_name}_coalesced"])


def daily_records_key(collection: Collection) -> dg.AssetKey:
    """Asset key of a collection's daily records, or daily rows."""
    return dg.AssetKey([collection.asset_name, collection.output_name])


def on_time_check_key(collection: Collection) -> dg.AssetCheckKey:
    """Key of the check that every due day is published."""
    return dg.AssetCheckKey(daily_records_key(collection), ON_TIME_CHECK)


def table_key(collection: Collection, table: Table) -> dg.AssetKey:
    """Asset key of one of a collection's tables or views."""
    return dg.AssetKey([collection.asset_name, table.short_name])


def table_keys(collection: Collection) -> tuple[dg.AssetKey, ...]:
    """Asset keys of all of a collection's tables and views; none where only files are published."""
    return tuple(table_key(collection, table) for table in collection.tables.tables) if collection.tables else ()


def snapshot_key(collection: Collection) -> dg.AssetKey:
    """Asset key of a keyed collection's snapshot."""
    return dg.AssetKey([collection.asset_name, "snapshot"])


def snapshot_table_keys(collection: Collection) -> tuple[dg.AssetKey, ...]:
    """Asset keys of the tables of a keyed collection's snapshots."""
    definition = collection.snapshot_tables
    return tuple(table_key(collection, table) for table in definition.tables) if definition else ()


def snapshot_keys(collection: Collection) -> frozenset[dg.AssetKey]:
    """Asset keys of a keyed collection's snapshot and its tables."""
    return frozenset({snapshot_key(collection), *snapshot_table_keys(collection)})


def snapshot_job_name(collection: Collection) -> str:
    """Name of the job that makes the snapshot of a Friday."""
    return f"{collection.asset_name}_snapshot"


def snapshot_sensor_name(collection: Collection) -> str:
    """Name of the sensor that launches a collection's snapshots."""
    return f"{collection.asset_name}_snapshot_sensor"


def keys_of(collection: Collection) -> tuple[dg.AssetKey, ...]:
    """Asset keys of everything of a collection."""
    return (input_key(collection), daily_records_key(collection), *table_keys(collection))


def completion_sensor_name(collection: Collection) -> str:
    """Name of the sensor that launches a collection's storage days."""
    return f"{collection.asset_name}_coalescer_completion_sensor"


def daily_job_name(collection: Collection) -> str:
    """Name of the job that takes one storage day from pinned input to tables."""
    return f"{collection.asset_name}_daily"


def coalesce_pool(collection: Collection) -> str:
    """Pool of a collection's coalescing: its limit is how many days are coalesced at a time."""
    return f"cdi_{collection.asset_name}_coalesce"


def ingest_pool(collection: Collection) -> str:
    """Pool of a collection's ingestion: its limit is how many days are ingested at a time."""
    return f"cdi_{collection.asset_name}"
