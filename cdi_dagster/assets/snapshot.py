"""`<collection>/snapshot`: one row for each id of a keyed collection, made every Friday by the job `build_snapshot`."""

import dagster as dg

from cdi_dagster import names
from cdi_dagster.assets.attempts import attempt_values, attempts_metadata, spent_metadata
from cdi_dagster.assets.plots import Metadata, only_plotted_as_numbers
from cdi_dagster.assets.steps import recorded_snapshot
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.snapshot_report import SnapshotReport
from cdi_dagster.core.spark_jobs import BUILD_SNAPSHOT
from cdi_dagster.core.storage_keys import snapshot_prefix
from cdi_dagster.ingestion.ingestion_lease import snapshot_lease
from cdi_dagster.ingestion.steps import snapshot_step
from cdi_dagster.interfaces import LaunchEvidence, PySparkStepLauncher, StatusTable
from cdi_dagster.partitions import snapshot_fridays, week_before
from cdi_dagster.published.snapshots import snapshot_of
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.storage.roots import Roots


def snapshot_asset(collection: Collection, *, automation: Automation) -> dg.AssetsDefinition:
    """Return the snapshot asset of a keyed collection."""
    first_storage_day = automation.calendar.first_storage_day

    @dg.asset(
        key=names.snapshot_key(collection),
        deps=[dg.AssetDep(names.daily_records_key(collection), partition_mapping=week_before())],
        partitions_def=snapshot_fridays(first_storage_day),
        group_name=collection.asset_name,
        owners=list(names.OWNERS),
        kinds={"pyspark", "orc"},
        tags={**names.collection_tag(collection), "cdi/layer": "snapshot"},
        pool=f"{names.ingest_pool(collection)}_snapshot",
        description=(
            f"The snapshot of `{collection.id}`: the newest before it with the daily rows since, as ORC by "
            "`id_part`.\n\n"
            "**Grain**: one row per id, also of ids that were deleted (`db_type` DELETE).\n\n"
            "The partition is the **export day, a Friday**: in a usual week it takes in the storage days from the "
            "Friday before to the Thursday. A missing day stops it and is named; all or nothing is published."
        ),
    )
    def snapshot(
        context: dg.AssetExecutionContext,
        roots: dg.ResourceParam[Roots],
        step_launcher: dg.ResourceParam[PySparkStepLauncher],
        status_table: dg.ResourceParam[StatusTable],
        options: IngestOptions,
    ) -> dg.MaterializeResult:
        day = snapshot_of(collection, parse_day(context.partition_key))
        with recorded_snapshot(
            context,
            day,
            BUILD_SNAPSHOT.name,
            status_table=status_table,
            options=options,
            automation=automation,
            followed_by=names.snapshot_table_keys(collection),
        ) as step:
            with snapshot_lease(roots.published, day, holder=step.correlation_id, log=context.log.info):
                spark_step = snapshot_step(
                    collection,
                    day.export_day,
                    roots.published,
                    first_storage_day=first_storage_day,
                    correlation_id=step.correlation_id,
                    is_followed=not step.ends_run,
                )
                evidence = step_launcher.launch(context, spark_step)
            report = SnapshotReport.from_json(evidence.report)
            step.cluster_id = evidence.cluster_id
            step.detail |= {"attempts": attempt_values(evidence.attempts), "rows": dict(report.rows)}
            if report.stale_later:
                context.log.warning(
                    f"Later snapshots were made of the one that this replaces, and are stale: make "
                    f"{', '.join(report.stale_later)} again."
                )
        return dg.MaterializeResult(
            metadata=only_plotted_as_numbers(_metadata(report, evidence, roots.published.uri(snapshot_prefix(day)))),
            data_version=dg.DataVersion(report.fingerprint),
        )

    return snapshot


def _metadata(report: SnapshotReport, evidence: LaunchEvidence, published_to: str) -> Metadata:
    return {
        "dagster/row_count": report.row_count,
        "rows_inserted": report.rows.get("INSERT", 0),
        "rows_deleted": report.rows.get("DELETE", 0),
        "rows_read": sum(report.rows_in.values()),
        "id_parts": report.id_parts,
        "files": report.files,
        "stored_bytes": report.stored_bytes,
        "seconds": round(report.seconds, 2),
        "base": report.base or "none: all days since the first",
        "storage_days": ", ".join(report.days),
        "stale_later_snapshots": ", ".join(report.stale_later) or "none",
        "published_to": dg.MetadataValue.path(published_to),
        "fingerprint": report.fingerprint,
        "correlation_id": report.correlation_id,
        "cluster_id": evidence.cluster_id,
        "log": dg.MetadataValue.path(evidence.log_location),
        "attempts": attempts_metadata(attempt_values(evidence.attempts)),
        **spent_metadata(evidence.attempts),
    }
