"""The Spark steps of a day, built from the same values for Dagster's assets and `cdi`, and what they must report.

No dagster: the caller chooses where and how a step is launched.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from cdi_dagster.core.collections import CORPORATE_STORAGE, Collection, CollectionDay
from cdi_dagster.core.days import storage_day_of
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.key_service_access import KeyServiceAccess
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.core.spark_jobs import BUILD_SNAPSHOT, CHECK_CLUSTER, INGEST_DAILY, PUBLISH_TABLES, SparkStep
from cdi_dagster.core.storage_keys import pinned_input_history_key
from cdi_dagster.core.table_definition import Table, TableDefinition
from cdi_dagster.core.tables_report import TablesReport
from cdi_dagster.published.read import read_mark
from cdi_dagster.published.snapshots import input_now, require_snapshot
from cdi_dagster.storage import Roots, StorageError
from cdi_dagster.storage.interface import Storage
from cdi_dagster.table_definitions import publish_copy


def ingest_step(
    day: CollectionDay,
    pinned: PinnedInput,
    published: Storage,
    *,
    correlation_id: str,
    key_service: KeyServiceAccess,
    max_rejected: str,
    allow_sparse_offsets: bool = False,
    is_followed: bool = False,
) -> SparkStep:
    """Return the step that publishes the daily records, or rows, of a pinned day.

    Args:
        day: what is ingested.
        pinned: the objects that the job reads.
        published: where it publishes.
        correlation_id: of the run.
        key_service: where the data keys are.
        max_rejected: most rejects with which the day is published: a number or a share.
        allow_sparse_offsets: accept objects with fewer records than their names state offsets.
        is_followed: whether the run publishes tables, too.
    """
    # The kept copy of the manifest, not the current one: nothing replaces that while the job runs.
    manifest = published.uri(pinned_input_history_key(day, pinned.fingerprint))
    arguments = [
        *("--pinned-input", manifest),
        *("--published-root", published.root),
        *("--correlation-id", correlation_id),
        *("--max-rejected", max_rejected),
        *key_service.arguments(),
    ]
    if allow_sparse_offsets:
        arguments.append("--allow-sparse-offsets")
    if not pinned.objects:
        # An empty day is pinned only where that was allowed.
        arguments.append("--allow-empty")
    return SparkStep(
        job=INGEST_DAILY,
        arguments=tuple(arguments),
        collection=day.collection,
        storage_day=day.storage_day,
        correlation_id=correlation_id,
        input_bytes=pinned.input_bytes,
        is_followed=is_followed,
    )


def tables_step(
    day: CollectionDay, published: Storage, *, correlation_id: str, tables: Iterable[Table] | None = None
) -> SparkStep:
    """Return the step that publishes tables of a day from its daily records; store the definition that it reads.

    Args:
        day: whose tables.
        published: where the records are.
        correlation_id: of the run.
        tables: to publish; every one of the collection by default.

    Raises:
        CdiError: INPUT_INVALID where the collection has no tables, or the day's records are not published.
    """
    definition = day.collection.tables
    if definition is None:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"No tables are defined for {day.collection.id}.",
            next_step="Name a definition for it in CDI_TABLE_DEFINITIONS (docs/tables.md).",
        )
    mark = read_mark(published, day)
    if mark is None:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"There are no daily records of {day.collection.id} for storage day {day.storage_day}.",
            next_step=f"Materialise {day.collection.asset_name}/{day.collection.output_name} for the day first, or run "
            "cdi ingest.",
        )
    return _tables_step(day, published, definition, tables, correlation_id=correlation_id, size=mark.published_bytes)


def snapshot_tables_step(
    day: CollectionDay, published: Storage, *, correlation_id: str, tables: Iterable[Table] | None = None
) -> SparkStep:
    """Return the step that publishes tables from the snapshot of the day's export day; store the definition.

    Args:
        day: as `published.snapshots.snapshot_of` names the snapshot.
        published: where it is.
        correlation_id: of the run.
        tables: to publish; every one of the collection's snapshots by default.

    Raises:
        CdiError: INPUT_INVALID where it has no tables, or the snapshot is not published.
    """
    definition = day.collection.snapshot_tables
    if definition is None:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"No tables are defined for snapshots of {day.collection.id}.",
            next_step="Name a definition for it in CDI_TABLE_DEFINITIONS (docs/tables.md).",
        )
    size = require_snapshot(published, day).stored_bytes
    return _tables_step(day, published, definition, tables, correlation_id=correlation_id, size=size)


def _tables_step(
    day: CollectionDay,
    published: Storage,
    definition: TableDefinition,
    tables: Iterable[Table] | None,
    *,
    correlation_id: str,
    size: int,
) -> SparkStep:
    return SparkStep(
        job=PUBLISH_TABLES,
        arguments=(
            *("--published-root", published.root),
            *("--collection", day.collection.id),
            *("--storage-day", day.storage_day.isoformat()),
            *("--correlation-id", correlation_id),
            *("--table-definition", publish_copy(published, definition)),
            *("--tables", ",".join(table.short_name for table in tables or definition.tables)),
        ),
        collection=day.collection,
        storage_day=day.storage_day,
        correlation_id=correlation_id,
        input_bytes=size,
    )


def snapshot_step(
    collection: Collection,
    export_day: date,
    published: Storage,
    *,
    first_storage_day: date,
    correlation_id: str,
    is_followed: bool = False,
) -> SparkStep:
    """Return the step that makes the snapshot of a Friday.

    Args:
        collection: a keyed one.
        export_day: the Friday.
        published: where the daily rows and the snapshots are.
        first_storage_day: of the collection, for a snapshot without a base.
        correlation_id: of the run.
        is_followed: whether the run publishes tables, too.

    Raises:
        CdiError: INPUT_INVALID where it is no Friday, or daily rows are missing; every day is named.
    """
    used, now = input_now(published, collection, export_day, first_storage_day=first_storage_day)
    of_base = now.snapshots[used.base.export_day].stored_bytes if used.base else 0
    return SparkStep(
        job=BUILD_SNAPSHOT,
        arguments=(
            *("--published-root", published.root),
            *("--collection", collection.id),
            *("--export-day", export_day.isoformat()),
            *("--first-storage-day", first_storage_day.isoformat()),
            *("--correlation-id", correlation_id),
        ),
        collection=collection,
        storage_day=storage_day_of(export_day),
        correlation_id=correlation_id,
        input_bytes=of_base + sum(now.rows[day].published_bytes for day in used.days),
        is_followed=is_followed,
    )


def cluster_check_step(
    day: CollectionDay, roots: Roots, *, correlation_id: str, key_service: KeyServiceAccess
) -> SparkStep:
    """Return the step that checks what the two others need where they run; it publishes nothing.

    Args:
        day: whose cluster template and ledger it uses; the day itself is not looked at.
        roots: that are checked.
        correlation_id: of the check.
        key_service: whose handshake is checked.
    """
    return SparkStep(
        job=CHECK_CLUSTER,
        arguments=(
            *("--corporate-root", roots.corporate.root),
            *("--published-root", roots.published.root),
            *("--correlation-id", correlation_id),
            *_sample_arguments(roots.corporate),
            *key_service.arguments(),
        ),
        collection=day.collection,
        storage_day=day.storage_day,
        correlation_id=correlation_id,
        input_bytes=0,
    )


def _sample_arguments(corporate: Storage) -> Iterator[str]:
    """Yield which object the job is to read: it may not list corporate storage itself. None where we may not either."""
    try:
        first = next(iter(corporate.list(CORPORATE_STORAGE)), None)
        found = corporate.head(first.key) if first else None
    except StorageError:
        return
    if found is not None:
        yield from ("--sample-key", found.key)
        if found.version_id is not None:
            yield from ("--sample-version-id", found.version_id)


def tables_of(step: SparkStep, report: Mapping[str, Any]) -> TablesReport:
    """Read the closing report of a step of `publish_tables`.

    Raises:
        CdiError: COUNTS_DO_NOT_RECONCILE where it does not name every table that was to be published.
    """
    tables = TablesReport.from_json(report)
    wanted = step.arguments[step.arguments.index("--tables") + 1].split(",")
    missing = sorted(set(wanted) - {table.name.partition(".")[2] for table in tables.tables})
    if missing:
        raise CdiError(
            FailureClass.COUNTS_DO_NOT_RECONCILE,
            f"The job succeeded, but its report does not name these tables: {', '.join(missing)}.",
        )
    return tables
