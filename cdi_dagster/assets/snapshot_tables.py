"""`<collection>/<table>`: the Hive tables of a keyed collection's snapshot, all by one launch of `publish_tables`."""

from collections.abc import Iterator

import dagster as dg

from cdi_dagster import names
from cdi_dagster.assets.attempts import attempt_values, spent_metadata
from cdi_dagster.assets.steps import recorded_snapshot
from cdi_dagster.assets.tables import materialized, table_spec
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.spark_jobs import PUBLISH_TABLES
from cdi_dagster.core.table_definition import Table, TableDefinition
from cdi_dagster.ingestion.ingestion_lease import snapshot_tables_lease
from cdi_dagster.ingestion.steps import snapshot_tables_step, tables_of
from cdi_dagster.interfaces import PySparkStepLauncher, StatusTable
from cdi_dagster.partitions import snapshot_fridays
from cdi_dagster.published.snapshots import snapshot_of
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.storage.roots import Roots


def snapshot_tables_asset(
    collection: Collection, definition: TableDefinition, *, automation: Automation
) -> dg.AssetsDefinition:
    """Return the tables of a collection's snapshots: one launch for those that are selected."""
    fridays = snapshot_fridays(automation.calendar.first_storage_day)

    @dg.multi_asset(
        name=f"{collection.asset_name}__snapshot_tables",
        specs=[_spec(collection, definition, table, fridays) for table in definition.tables],
        can_subset=True,
        pool=names.LOCAL_METASTORE_POOL,
    )
    def snapshot_tables(
        context: dg.AssetExecutionContext,
        roots: dg.ResourceParam[Roots],
        step_launcher: dg.ResourceParam[PySparkStepLauncher],
        status_table: dg.ResourceParam[StatusTable],
        options: IngestOptions,
    ) -> Iterator[dg.MaterializeResult]:
        day = snapshot_of(collection, parse_day(context.partition_key))
        selected = [
            table for table in definition.tables if names.table_key(collection, table) in context.selected_asset_keys
        ]
        with recorded_snapshot(
            context, day, PUBLISH_TABLES.name, status_table=status_table, options=options, automation=automation
        ) as step:
            with snapshot_tables_lease(roots.published, day, holder=step.correlation_id, log=context.log.info):
                spark_step = snapshot_tables_step(
                    day, roots.published, correlation_id=step.correlation_id, tables=selected
                )
                evidence = step_launcher.launch(context, spark_step)
            step.cluster_id = evidence.cluster_id
            report = tables_of(spark_step, evidence.report)
            step.detail |= {"table_attempts": attempt_values(evidence.attempts)}
            step.detail |= {table.name: table.rows for table in report.tables}
        yield from materialized(
            collection, definition, selected, report, evidence, spent=spent_metadata(evidence.attempts)
        )

    return snapshot_tables


def _spec(
    collection: Collection, definition: TableDefinition, table: Table, fridays: dg.WeeklyPartitionsDefinition
) -> dg.AssetSpec:
    return table_spec(
        collection,
        definition,
        table,
        what="table",
        made_from=names.snapshot_key(collection),
        partitions=fridays,
        layer="snapshot_tables",
        grain=(
            "**Grain**: One row per id, also of ids that were deleted. The partition is the export day, a Friday, of "
            "the snapshot that it is made from.\n\n"
            "The table itself has no partitions: it shows the snapshot that was published to it last, and is replaced "
            f"whole, in one step. Its columns are those of {definition.source}, {definition.sha256[:12]}."
        ),
    )
