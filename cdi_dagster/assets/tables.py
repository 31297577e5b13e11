"""`<collection>/<table>`: the Hive tables and views of one storage day, all by one launch of `publish_tables`."""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from cdi_dagster import names
from cdi_dagster.assets.attempts import attempt_values, attempts_metadata, spent_metadata
from cdi_dagster.assets.plots import Metadata, only_plotted_as_numbers
from cdi_dagster.assets.steps import recorded_step
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.spark_jobs import PUBLISH_TABLES
from cdi_dagster.core.table_definition import Table, TableDefinition, TableKind
from cdi_dagster.core.tables_report import PublishedTable, TablesReport
from cdi_dagster.ingestion.ingestion_lease import ingestion_lease
from cdi_dagster.ingestion.steps import tables_of, tables_step
from cdi_dagster.interfaces import LaunchEvidence, PySparkStepLauncher, StatusTable
from cdi_dagster.published.tables import is_whole
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.run_records import assets_of_run, is_by_person, is_materialised_since
from cdi_dagster.storage.interface import Storage
from cdi_dagster.storage.roots import Roots


def tables_asset(
    collection: Collection,
    definition: TableDefinition,
    partitions: dg.DailyPartitionsDefinition,
    *,
    automation: Automation,
    pool: str | None,
) -> dg.AssetsDefinition:
    """Return the tables of a collection: one launch for those that are selected, in a pool where there is one."""

    @dg.multi_asset(
        name=f"{collection.asset_name}__tables",
        specs=[_spec(collection, definition, table, partitions) for table in definition.tables],
        can_subset=True,
        pool=pool,
    )
    def tables(
        context: dg.AssetExecutionContext,
        roots: dg.ResourceParam[Roots],
        step_launcher: dg.ResourceParam[PySparkStepLauncher],
        status_table: dg.ResourceParam[StatusTable],
        options: IngestOptions,
    ) -> Iterator[dg.MaterializeResult]:
        selected = [
            table for table in definition.tables if names.table_key(collection, table) in context.selected_asset_keys
        ]
        with recorded_step(
            context,
            collection,
            PUBLISH_TABLES.name,
            status_table=status_table,
            options=options,
            automation=automation,
        ) as step:
            # As `cdi tables` does: an ingestion beside it would replace the records while they are read.
            with ingestion_lease(roots.published, step.day, holder=step.correlation_id, log=context.log.info):
                _require_work_left(context, step.day, roots.published)
                spark_step = tables_step(step.day, roots.published, correlation_id=step.correlation_id, tables=selected)
                evidence = step_launcher.launch(context, spark_step)
            step.cluster_id = evidence.cluster_id
            step.detail["table_attempts"] = attempt_values(evidence.attempts)
            report = tables_of(spark_step, evidence.report)
            step.add_tables(report, roots.published)
        yield from materialized(
            collection,
            definition,
            selected,
            report,
            evidence,
            spent=spent_metadata(evidence.attempts),
        )

    return tables


def materialized(
    collection: Collection,
    definition: TableDefinition,
    tables: Sequence[Table],
    report: TablesReport,
    evidence: LaunchEvidence,
    *,
    spent: Mapping[str, float],
) -> Iterator[dg.MaterializeResult]:
    """Yield the materialisation of each table; what the launch spent on the first alone, so that the sum is true."""
    published = {table.name: table for table in report.tables}
    for table in tables:
        metadata = _metadata(published[table.name], definition, report, evidence)
        yield dg.MaterializeResult(
            asset_key=names.table_key(collection, table),
            metadata=only_plotted_as_numbers({**metadata, **(spent if table is tables[0] else {})}),
            data_version=dg.DataVersion(f"{report.fingerprint}-{report.definition_sha256[:12]}"),
        )


def _require_work_left(context: dg.AssetExecutionContext, day: CollectionDay, published: Storage) -> None:
    """Stop a run that automation launched for tables alone where another has made them since it was requested."""
    mine = context.instance.get_run_record_by_id(context.run.run_id)
    if mine is None or is_by_person(context.run) or names.daily_records_key(day.collection) in assets_of_run(context):
        return
    are_made = all(
        is_materialised_since(context.instance, key, day.storage_day, mine.create_timestamp)
        for key in context.selected_asset_keys
    )
    if are_made and is_whole(published, day):
        raise CdiError(FailureClass.DUPLICATE_RUN, f"The tables of {day} show its records already.")


def _spec(
    collection: Collection, definition: TableDefinition, table: Table, partitions: dg.DailyPartitionsDefinition
) -> dg.AssetSpec:
    what = "view" if table.kind is TableKind.VIEW else "table"
    shown = definition.managed if table.kind is TableKind.VIEW else None
    return table_spec(
        collection,
        definition,
        table,
        what=what,
        made_from=names.table_key(collection, shown) if shown else names.daily_records_key(collection),
        partitions=partitions,
        layer="tables",
        grain=(
            "**Grain**: One row per record. Partition `date_str` is the export day (storage day + 1).\n\n"
            f"A re-run replaces exactly that partition. Its columns are those of {definition.source}, "
            f"{definition.sha256[:12]}."
        ),
    )


def table_spec(
    collection: Collection,
    definition: TableDefinition,
    table: Table,
    *,
    what: str,
    made_from: dg.AssetKey,
    partitions: dg.PartitionsDefinition,
    layer: str,
    grain: str,
) -> dg.AssetSpec:
    """Return the spec of a table or view; `grain` ends its description."""
    return dg.AssetSpec(
        key=names.table_key(collection, table),
        deps=[made_from],
        partitions_def=partitions,
        # The UI marks what was made by another definition.
        code_version=definition.sha256[:12],
        group_name=collection.asset_name,
        owners=list(names.OWNERS),
        kinds={"pyspark", "hive", what},
        tags={**names.collection_tag(collection), "cdi/layer": layer},
        description=f"The {what} `{table.name}`. {table.about}\n\n{grain}",
    )


def _metadata(
    table: PublishedTable, definition: TableDefinition, report: TablesReport, evidence: LaunchEvidence
) -> Metadata:
    metadata: Metadata = {
        "dagster/row_count": table.rows,
        "dagster/table_name": table.name,
        "columns": table.columns,
        "stored_bytes": table.stored_bytes,
        "files": table.files,
        "unparsable_values": sum(table.unparsable.values()),
        "seconds": round(table.seconds, 2),
        "action": table.action,
        "date_str": report.export_day,
        "table_definition": definition.source,
        "table_definition_sha256": report.definition_sha256,
        "correlation_id": report.correlation_id,
        "cluster_id": evidence.cluster_id,
        "log": dg.MetadataValue.path(evidence.log_location),
        "attempts": attempts_metadata(attempt_values(evidence.attempts)),
    }
    if table.location:
        metadata["location"] = dg.MetadataValue.path(table.location)
    if table.unparsable:
        rows = [f"| `{column}` | {count} |" for column, count in sorted(table.unparsable.items())]
        metadata["unparsable_by_column"] = dg.MetadataValue.md("\n".join(["| column | values |", "|---|---|", *rows]))
    return metadata
