"""`cdi tables`: the tables of one published day, without Dagster, by the Spark job that the assets run."""

from datetime import date

import click

from cdi_dagster.cli.console import facts, json_option, print_json, result_console
from cdi_dagster.cli.local_run import LocalRun, only_this_run, record, run_step
from cdi_dagster.cli.options import (
    collection_option,
    correlation_id_option,
    given,
    published_root_option,
    storage_day_option,
    verbose_option,
)
from cdi_dagster.core.collections import Collection, require_append_only
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.spark_jobs import PUBLISH_TABLES
from cdi_dagster.core.storage_keys import tables_report_key
from cdi_dagster.core.tables_report import TablesReport


@click.command("tables")
@published_root_option()
@collection_option()
@storage_day_option()
@correlation_id_option("Id of this run. Default: a new one.")
@verbose_option()
@json_option
def tables_command(
    published_root: str | None,
    collection: Collection,
    storage_day: date,
    correlation_id: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Publish the tables of a day from its published records: after a replay of rejects, or the loss of a metastore.

    Replaces exactly the day's partition of each table, however often it is run. For tables of this machine; those of
    the clusters are materialised in Dagster.
    """
    run = LocalRun.of(collection.on(storage_day), correlation_id=correlation_id, **given(published_root=published_root))
    require_tables_here(run)
    # The lease too: an ingestion beside it would replace the records while they are read.
    with only_this_run(run), record(run, PUBLISH_TABLES.name) as row:
        report = publish_tables(run, verbose=verbose)
        row.add_tables(report, run.roots.published)
    if as_json:
        print_json({"correlation_id": run.correlation_id, "export_day": export_day_of(storage_day), **report.to_json()})
        return
    where = f"{collection.id}, storage day {storage_day}, date_str {export_day_of(storage_day)}"
    result_console().print(facts([("collection", where), *table_facts(report)]))


def require_tables_here(run: LocalRun) -> None:
    """Return where the collection has tables and they are kept on this machine.

    Raises:
        CdiError: INPUT_INVALID where the collection is keyed.
        click.UsageError: otherwise.
    """
    require_append_only(run.day.collection)
    if run.day.collection.tables is None:
        raise click.UsageError(f"No tables are published of {run.day.collection.id}: only its files are published.")
    if run.settings.deployment != "local":
        raise click.UsageError(
            f"CDI_DEPLOYMENT is {run.settings.deployment}: the tables are in the clusters' Hive, which this machine "
            "does not reach. Materialise them in the Dagster UI."
        )


def publish_tables(run: LocalRun, *, verbose: bool) -> TablesReport:
    """Run the Spark job and return its closing report. The caller holds the day's lease.

    Raises:
        CdiError: of the class that the job stated, or that its end suggests.
    """
    from cdi_dagster.ingestion.steps import tables_of, tables_step

    step = tables_step(run.day, run.roots.published, correlation_id=run.correlation_id)
    report, error = run_step(run, step, tables_report_key(run.day, run.correlation_id), verbose=verbose)
    if error:
        raise error
    return tables_of(step, report or {})


def table_facts(report: TablesReport) -> list[tuple[str, str]]:
    """List what was published."""
    return [(f"{table.kind} table", f"{table.name}: {table.rows:,} rows") for table in report.tables]
