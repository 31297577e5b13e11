"""`cdi snapshot`: the snapshot of a Friday, without Dagster, by the Spark job that the asset runs; and its adoption."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date
from typing import Any

import click
from rich.markup import escape

from cdi_dagster.cli.console import facts, json_option, print_json, progress_console, result_console
from cdi_dagster.cli.local_run import LocalRun, record, run_step
from cdi_dagster.cli.options import (
    collection_option,
    correlation_id_option,
    given,
    published_root_option,
    snapshot_day_option,
    verbose_option,
)
from cdi_dagster.cli.snapshot_overview import made_facts, rows_text
from cdi_dagster.cli.tables import table_facts
from cdi_dagster.clock import utc_now
from cdi_dagster.core.collections import Collection, require_keyed
from cdi_dagster.core.days import storage_day_of
from cdi_dagster.core.snapshot import require_snapshot_day
from cdi_dagster.core.snapshot_report import SnapshotReport
from cdi_dagster.core.spark_jobs import BUILD_SNAPSHOT, PUBLISH_TABLES
from cdi_dagster.core.storage_keys import snapshot_prefix, snapshot_report_key, tables_report_key


@click.group("snapshot", invoke_without_command=True)
@published_root_option()
@collection_option(required=False)
@snapshot_day_option()
@correlation_id_option("Id of this run. Default: a new one.")
@verbose_option()
@json_option
@click.pass_context
def snapshot_group(
    ctx: click.Context,
    published_root: str | None,
    collection: Collection | None,
    export_day: date | None,
    correlation_id: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Make the snapshot of a keyed collection for a Friday; or adopt one of the old system (`adopt`).

    It is made from the newest snapshot before it that is not stale, and the daily rows since; a missing day stops it,
    and is named. Replaces exactly that snapshot, or changes nothing. Shows which later snapshots are stale then.
    """
    if ctx.invoked_subcommand:
        return
    if collection is None or export_day is None:
        raise click.UsageError("Missing option '--collection' or '--export-day'.")
    run = _run(collection, export_day, correlation_id=correlation_id, **given(published_root=published_root))
    report = _make(run, export_day, verbose=verbose)
    if as_json:
        print_json(report.to_json())
    else:
        result_console().print(facts(_facts(report, run.uri(snapshot_prefix(run.day)) or "")))


@snapshot_group.command("adopt")
@published_root_option()
@collection_option()
@snapshot_day_option(required=True)
@json_option
def adopt_command(published_root: str | None, collection: Collection, export_day: date, as_json: bool) -> None:
    """Declare a snapshot that was copied from the old system to be whole: the next ones begin from it.

    Run it when the copy is complete and its counts are compared; until then nothing begins from it (docs/snapshots.md).
    """
    from cdi_dagster.published.snapshots import adopt_snapshot

    run = _run(collection, export_day, **given(published_root=published_root))
    now = utc_now().replace(microsecond=0)
    mark = adopt_snapshot(run.roots.published, collection, export_day, correlation_id=run.correlation_id, now=now)
    values = {"export_day": str(export_day), "files": len(mark.parts), "stored_bytes": mark.stored_bytes}
    if as_json:
        print_json(values)
    else:
        what = f"{collection.id}, export day {export_day}"
        size = f"{len(mark.parts):,} files, {mark.stored_bytes:,} bytes"
        result_console().print(facts([("adopted", what), ("files", size)]))


@snapshot_group.command("tables")
@published_root_option()
@collection_option()
@snapshot_day_option(required=True)
@click.option("--table", "wanted", multiple=True, metavar="NAME", help="One of them, without database; repeatable.")
@verbose_option()
@json_option
def tables_command(
    published_root: str | None,
    collection: Collection,
    export_day: date,
    wanted: tuple[str, ...],
    verbose: bool,
    as_json: bool,
) -> None:
    """Publish the tables of a snapshot, or some of them: each is replaced whole, in one step. Of this machine."""
    from cdi_dagster.ingestion.ingestion_lease import snapshot_tables_lease
    from cdi_dagster.ingestion.steps import snapshot_tables_step, tables_of

    run = _run(collection, export_day, **given(published_root=published_root))
    if run.settings.deployment != "local":
        raise click.UsageError(f"CDI_DEPLOYMENT is {run.settings.deployment}: materialise them in the Dagster UI.")
    definition = run.day.collection.snapshot_tables
    try:
        tables = definition.named(wanted) if definition and wanted else None
    except ValueError as error:
        raise click.UsageError(f"--table: {error}") from error
    with _held(run, snapshot_tables_lease), record(run, PUBLISH_TABLES.name) as row:
        row.snapshot_prefix = snapshot_prefix(run.day)
        row.begin(PUBLISH_TABLES.name)
        step = snapshot_tables_step(run.day, run.roots.published, correlation_id=run.correlation_id, tables=tables)
        found, failure = run_step(run, step, tables_report_key(run.day, run.correlation_id), verbose=verbose)
        if failure:
            raise failure
        report = tables_of(step, found or {})
        row.detail |= {table.name: table.rows for table in report.tables}
    if as_json:
        print_json(report.to_json())
    else:
        result_console().print(facts([("snapshot", f"{collection.id}, export day {export_day}"), *table_facts(report)]))


def _run(collection: Collection, export_day: date, **options: Any) -> LocalRun:
    require_keyed(collection)
    require_snapshot_day(export_day)
    return LocalRun.of(collection.on(storage_day_of(export_day)), **options)


def _make(run: LocalRun, export_day: date, *, verbose: bool) -> SnapshotReport:
    from cdi_dagster.ingestion.ingestion_lease import snapshot_lease
    from cdi_dagster.ingestion.steps import snapshot_step

    published = run.roots.published
    with _held(run, snapshot_lease), record(run, BUILD_SNAPSHOT.name) as row:
        row.snapshot_prefix = snapshot_prefix(run.day)
        row.begin(BUILD_SNAPSHOT.name)
        step = snapshot_step(
            run.day.collection,
            export_day,
            published,
            first_storage_day=run.settings.first_storage_day,
            correlation_id=run.correlation_id,
        )
        found, error = run_step(run, step, snapshot_report_key(run.day, run.correlation_id), verbose=verbose)
        if error:
            raise error
        report = SnapshotReport.from_json(found or {})
        row.detail["rows"] = dict(report.rows)
    return report


def _held(run: LocalRun, lease: Callable[..., AbstractContextManager[Any]]) -> AbstractContextManager[Any]:
    console = progress_console()
    return lease(run.roots.published, run.day, holder=run.correlation_id, log=lambda text: console.print(escape(text)))


def _facts(report: SnapshotReport, uri: str) -> list[tuple[str, str]]:
    return [
        ("snapshot", f"{report.collection_id}, export day {report.export_day}"),
        *made_facts(report.base, report.days),
        ("rows in", rows_text(report.rows_in)),
        ("rows", rows_text(report.rows)),
        ("files", f"{report.files:,} in {report.id_parts} id_parts, {report.stored_bytes:,} bytes"),
        ("stale", f"{', '.join(report.stale_later)}: make them again" if report.stale_later else "no later snapshot"),
        ("published", uri),
    ]
