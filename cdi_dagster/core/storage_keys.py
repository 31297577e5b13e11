"""Every key under the corporate root and the published root, in one module.

All functions return keys or prefixes relative to a root; prefixes end with `/`. The names are contracts with
downstream readers (`json/daily/<export day>/...`); what is under `_control` is ours.
"""

import re
from urllib.parse import unquote

from cdi_dagster.core.collections import CORPORATE_STORAGE, Collection, CollectionDay

_BASE = "corporate_data_ingestion"
SUCCESS_MARK = "_SUCCESS"
PUBLICATIONS_PREFIX = f"{_BASE}/_publications/"
"""Below it, in a bucket, what finishes a publication or an upload after a kill: a role limited to `_BASE` will do."""
REJECTS_FOLDER = "rejects/"
"""Below a run's prefix."""
INGEST_REPORT = "ingest_report.json"
"""Below a run's prefix."""
_TABLES_REPORT = "tables_report.json"
_COALESCER = "_coalescer/"
_MEMBER_INDEX = ".members.json"
_ESCAPED_IN_FOLDERS = re.compile("[\\x00-\\x1f\\x7f\"#%'*/:=?\\\\{\\[\\]^]")
"""What Hive and Spark escape in the name of a partition's folder; and NUL, which no name may hold."""


def daily_records_prefix(day: CollectionDay) -> str:
    """Prefix of the published daily records: gzipped JSON lines, and `_SUCCESS` once they are complete."""
    return f"{_BASE}/json/daily/{day.export_day}/{day.collection.db}/{day.collection.name}/"


def daily_rows_prefix(day: CollectionDay) -> str:
    """Prefix of a day's published rows of a keyed collection: a folder for each `id_part`, and `_SUCCESS` at the end.

    Year, month and day are those of the export day, without leading zeros.
    """
    export_day = day.export_day
    return (
        f"{all_daily_rows_prefix(day.collection)}export_year={export_day.year}/"
        f"export_month={export_day.month}/export_day={export_day.day}/"
    )


def all_daily_rows_prefix(collection: Collection) -> str:
    """Prefix of the published rows of all days of a keyed collection."""
    return f"{_BASE}/orc/daily/{collection.db}/{collection.name}/"


def snapshot_prefix(day: CollectionDay) -> str:
    """Prefix of the snapshot of the day's export day: a folder for each `id_part`, and `_SUCCESS` at the end."""
    return f"{_BASE}/exports/{day.collection.db}/{day.collection.name}/{day.export_day}/"


def snapshot_staging_prefix(day: CollectionDay) -> str:
    """Prefix of what Spark has written of a snapshot that is not published yet; nobody reads there."""
    return f"{_BASE}/_staging/exports/{day.collection.db}/{day.collection.name}/{day.export_day}/"


def run_staging_prefix(day: CollectionDay, correlation_id: str) -> str:
    """Prefix of what one run has written there."""
    return f"{snapshot_staging_prefix(day)}{correlation_id}/"


def snapshot_lease_key(day: CollectionDay) -> str:
    """Key of the lease that the run which makes the snapshot holds."""
    return f"{control_prefix(day)}snapshot_lease.json"


def snapshot_tables_lease_key(collection: Collection) -> str:
    """Key of the lease that the run which publishes tables of a snapshot holds: of all Fridays, as the tables are."""
    return f"{_BASE}/_control/{collection.db}/{collection.name}/snapshot_tables_lease.json"


def snapshot_report_key(day: CollectionDay, correlation_id: str) -> str:
    """Key of the closing report of the run that made the snapshot."""
    return f"{run_prefix(day, correlation_id)}snapshot_report.json"


def id_part_folder(id_part: str) -> str:
    """Name, with `/`, of the folder that holds the rows of one `id_part`, escaped as Hive does."""
    return f"id_part={_ESCAPED_IN_FOLDERS.sub(lambda found: f'%{ord(found[0]):02X}', id_part)}/"


def id_part_of(key: str) -> str | None:
    """Return the `id_part` in whose folder a key lies, None where it lies in none."""
    name = key.rpartition("/")[0].rpartition("/")[2]
    return unquote(name.removeprefix("id_part=")) if name.startswith("id_part=") else None


def is_data_key(key: str) -> bool:
    """Whether a key is of a data file: Spark and Hive skip names that begin with `_` or `.`."""
    return not key.rpartition("/")[2].startswith(("_", "."))


def daily_prefix(day: CollectionDay) -> str:
    """Prefix of what is published of a day: records, or the rows of a keyed collection."""
    return daily_rows_prefix(day) if day.collection.is_keyed else daily_records_prefix(day)


def mark_key(day: CollectionDay) -> str:
    """Key of the mark of what is published of a day."""
    return f"{daily_prefix(day)}{SUCCESS_MARK}"


def control_prefix(day: CollectionDay) -> str:
    """Prefix of everything we keep about one collection and day: pinned inputs, rejects, reports."""
    return f"{_BASE}/_control/{day.collection.db}/{day.collection.name}/{day.export_day}/"


def raw_volume_key(day: CollectionDay) -> str:
    """Key of what the day held before it was coalesced: afterwards it is not known how many objects K2HB wrote."""
    return f"{control_prefix(day)}raw_volume.json"


def ingestion_lease_key(day: CollectionDay) -> str:
    """Key of the lease that the run which ingests the day holds."""
    return f"{control_prefix(day)}ingestion_lease.json"


def pinned_input_key(day: CollectionDay) -> str:
    """Key of the pinned input that the next run reads; older ones stay beside it under their fingerprint."""
    return f"{control_prefix(day)}pinned_input.json"


def pinned_input_history_key(day: CollectionDay, fingerprint: str) -> str:
    """Key under which one pinned input is kept permanently."""
    return f"{control_prefix(day)}pinned/{fingerprint}.json"


def runs_prefix(day: CollectionDay) -> str:
    """Prefix of what all runs of the day write about themselves."""
    return f"{control_prefix(day)}runs/"


def quiet_listing_key(day: CollectionDay) -> str:
    """Key of what was seen of the day's listing, where a quiet listing counts as complete."""
    return f"{control_prefix(day)}quiet_listing.json"


def completion_proof_key(day: CollectionDay) -> str:
    """Key of the coalescer's completion of the day as AWS Batch reported it: Batch forgets it after a week."""
    return f"{control_prefix(day)}coalescer_completion.json"


def launch_prefix(day: CollectionDay, step: str) -> str:
    """Return where everything about the launches of a day's step lies, without an ending.

    The same for every run of the day: a run made by the sensor or a person finds the launch of the one before.
    """
    return f"{control_prefix(day)}launches/{step}"


def run_prefix(day: CollectionDay, correlation_id: str) -> str:
    """Prefix of what one run writes about itself: its report, its rejects."""
    return f"{runs_prefix(day)}{correlation_id}/"


def run_report_key(day: CollectionDay, correlation_id: str) -> str:
    """Key of a run's closing report."""
    return f"{run_prefix(day, correlation_id)}{INGEST_REPORT}"


def rejects_prefix(day: CollectionDay, correlation_id: str) -> str:
    """Prefix of a run's rejects: gzipped JSON lines, still encrypted."""
    return f"{run_prefix(day, correlation_id)}{REJECTS_FOLDER}"


def run_failure_key(day: CollectionDay, correlation_id: str) -> str:
    """Key of why a run failed, where it did."""
    return f"{run_prefix(day, correlation_id)}failure.json"


def tables_report_key(day: CollectionDay, correlation_id: str) -> str:
    """Key of the closing report of the run that published the tables."""
    return f"{run_prefix(day, correlation_id)}{_TABLES_REPORT}"


def is_tables_report_key(key: str) -> bool:
    """Whether a key below `runs_prefix` is that of a tables report."""
    return key.endswith(f"/{_TABLES_REPORT}")


def table_definition_key(sha256: str) -> str:
    """Key of the copy of a table definition that Spark jobs read."""
    return f"{_BASE}/_control/table_definitions/{sha256}.json"


def tables_prefix() -> str:
    """Prefix of the data of tables made from records; below it `<database>/<table>/`."""
    return f"{_BASE}/tables/"


def shared_tables_prefix() -> str:
    """Prefix of the data of tables over managed; below it `<database>/<table>/`: readers are granted access by it."""
    return "data/"


def coalescer_marker_key(day: CollectionDay) -> str:
    """Key, under the corporate root, of our own coalescer's RUNNING or COMPLETE marker for one collection and day."""
    return (
        f"{_COALESCER}{day.collection.group}/{day.storage_day:%Y/%m/%d}/{day.collection.db}/{day.collection.name}.json"
    )


def member_indexes_prefix(day: CollectionDay) -> str:
    """Prefix, under the corporate root, of the indexes of the day's coalesced objects: beside the marker."""
    return _beside_marker(day.corporate_prefix)


def member_index_key(object_key: str) -> str:
    """Key, under the corporate root, of the index of a coalesced object's gzip members; it ends as no object does."""
    return f"{_beside_marker(object_key)}{_MEMBER_INDEX}"


def indexed_object_key(index_key: str) -> str:
    """Key of the object of which this is the index."""
    return f"{CORPORATE_STORAGE}{index_key.removeprefix(_COALESCER).removesuffix(_MEMBER_INDEX)}"


def _beside_marker(key: str) -> str:
    return f"{_COALESCER}{key.removeprefix(CORPORATE_STORAGE)}"


def clusters_prefix() -> str:
    """Prefix of what is kept of the clusters that steps pass on to each other; below it `<cluster id>.json`."""
    return f"{_BASE}/_control/clusters/"


def doctor_key(name: str) -> str:
    """Key of what `cdi doctor` writes and deletes again, to see whether it may."""
    return f"{_BASE}/_control/doctor/{name}"
