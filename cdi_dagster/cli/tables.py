"""`cdi tables`: the tables of published days, without Dagster, by the Spark job that the assets run."""

from datetime import date

import click

from cdi_dagster.cli.console import facts, json_option, print_json, result_console
from cdi_dagster.cli.local_run import LocalRun, only_this_run, record, run_step
from cdi_dagster.cli.options import (
    DayType,
    collection_option,
    correlation_id_option,
    given,
    published_root_option,
    verbose_option,
)
from cdi_dagster.cli.tables_check import check_command
from cdi_dagster.core.collections import Collection, require_append_only
from cdi_dagster.core.days import storage_days_between
from cdi_dagster.core.spark_jobs import PUBLISH_TABLES
from cdi_dagster.core.storage_keys import tables_report_key
from cdi_dagster.core.tables_report import TablesReport
from cdi_dagster.published.read import read_mark


@click.group("tables", invoke_without_command=True)
@published_root_option()
@collection_option(required=False)
@click.option(
    "--storage-day",
    "--from",
    "storage_day",
    type=DayType(),
    metavar="YYYY-MM-DD",
    help="UTC day under whose prefix K2HB wrote: the day before the export day.",
)
@click.option("--to", "last_day", type=DayType(), metavar="YYYY-MM-DD", help="Last storage day. Default: the first.")
@correlation_id_option("Id of this run, for a single day. Default: a new one.")
@verbose_option()
@json_option
@click.pass_context
def tables_group(
    ctx: click.Context,
    published_root: str | None,
    collection: Collection | None,
    storage_day: date | None,
    last_day: date | None,
    correlation_id: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Publish the tables of days from their published records; or check a definition of tables (`check`).

    After a change of the table definition, a replay of rejects, or the loss of a metastore. Replaces exactly the
    partitions of these days, however often it is run; days without published records are left out. For tables of
    this machine; those of the clusters are materialised in Dagster.
    """
    if ctx.invoked_subcommand:
        return
    if collection is None or storage_day is None:
        raise click.UsageError("Missing option '--collection' or '--storage-day'.")
    days = storage_days_between(storage_day, last_day or storage_day)
    if not days:
        raise click.UsageError(f"--to {last_day} is before --from {storage_day}: swap them.")
    if correlation_id and len(days) > 1:
        raise click.UsageError("--correlation-id is for a single day: leave it out, or leave out --to.")
    first = LocalRun.of(collection.on(days[0]), correlation_id=correlation_id, **given(published_root=published_root))
    require_tables_here(first)
    runs = [first, *(first.on(day) for day in days[1:])]
    # Where no day has records, the first one fails with what to do.
    published = [run for run in runs if read_mark(run.roots.published, run.day)] or runs[:1]
    reports = []
    for run in published:
        reports.append(_publish_day(run, verbose=verbose))
        if not as_json:
            where = f"{collection.id}, storage day {run.day.storage_day}, date_str {run.day.export_day}"
            result_console().print(facts([("collection", where), *table_facts(reports[-1])]))
    if as_json:
        print_json(reports[0].to_json() if len(runs) == 1 else {"days": [report.to_json() for report in reports]})
    elif len(published) < len(runs):
        result_console().print(f"{len(runs) - len(published)} of {len(runs)} days have no published records.")


tables_group.add_command(check_command)


def _publish_day(run: LocalRun, *, verbose: bool) -> TablesReport:
    # The lease too: an ingestion beside it would replace the records while they are read.
    with only_this_run(run), record(run, PUBLISH_TABLES.name) as row:
        report = publish_tables(run, verbose=verbose)
        row.add_tables(report, run.roots.published)
    return report


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
    return [(table.kind, f"{table.name}: {table.rows:,} rows") for table in report.tables]
