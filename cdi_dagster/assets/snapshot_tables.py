"""`<collection>/<table>`: the Hive tables of a keyed collection's snapshot, all by one launch of `publish_tables`."""

from collections.abc import Iterator

import dagster as dg

from cdi_dagster import names
from cdi_dagster.assets.attempts import attempt_values, cost_metadata
from cdi_dagster.assets.plots import only_plotted_as_numbers
from cdi_dagster.assets.steps import recorded_snapshot
from cdi_dagster.assets.tables import table_metadata
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.spark_jobs import PUBLISH_TABLES
from cdi_dagster.core.table_definition import Table, TableDefinition
from cdi_dagster.ingestion.ingestion_lease import snapshot_lease
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
        keys = {names.table_key(collection, table): table for table in definition.tables}
        selected = [table for key, table in keys.items() if key in context.selected_asset_keys]
        with recorded_snapshot(
            context, day, PUBLISH_TABLES.name, status_table=status_table, options=options, automation=automation
        ) as step:
            # Making the snapshot beside it would replace its files while they are read.
            with snapshot_lease(roots.published, day, holder=step.correlation_id, log=context.log.info):
                spark_step = snapshot_tables_step(
                    day, roots.published, correlation_id=step.correlation_id, tables=selected
                )
                evidence = step_launcher.launch(context, spark_step)
            step.cluster_id = evidence.cluster_id
            report = tables_of(spark_step, evidence.report)
            step.detail |= {"table_attempts": attempt_values(evidence.attempts)}
            step.detail |= {table.name: table.rows for table in report.tables}
        published = {table.name: table for table in report.tables}
        cost = cost_metadata(evidence.attempts)  # of the launch: on its first table alone, so that the sum is true
        for table in selected:
            metadata = table_metadata(published[table.name], definition, report, evidence)
            yield dg.MaterializeResult(
                asset_key=names.table_key(collection, table),
                metadata=only_plotted_as_numbers(metadata | (cost if table is selected[0] else {})),
                data_version=dg.DataVersion(f"{report.fingerprint}-{report.definition_sha256[:12]}"),
            )

    return snapshot_tables


def _spec(
    collection: Collection, definition: TableDefinition, table: Table, fridays: dg.WeeklyPartitionsDefinition
) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=names.table_key(collection, table),
        deps=[names.snapshot_key(collection)],
        partitions_def=fridays,
        # The UI marks what was made by another definition.
        code_version=definition.sha256[:12],
        group_name=collection.asset_name,
        owners=list(names.OWNERS),
        kinds={"pyspark", "hive", "table"},
        tags={**names.collection_tag(collection), "cdi/layer": "snapshot_tables"},
        description=(
            f"The table `{table.name}`. {table.about}\n\n"
            "**Grain**: One row per id, also of ids that were deleted. The partition is the export day, a Friday, of "
            "the snapshot that it is made from.\n\n"
            "The table itself has no partitions: it shows the snapshot that was published to it last, and is replaced "
            f"whole, in one step. Its columns are those of {definition.source}, {definition.sha256[:12]}."
        ),
    )
