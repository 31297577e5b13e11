"""`cdi ingest`: one day without Dagster: gate, pin, Spark job on this machine, published records, counts.

The same steps and the same Spark job as the assets run; what it leaves is what they leave. Nothing else is started.
"""

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import click
from rich.console import Console

from cdi_dagster.cli.console import facts, json_option, print_json, progress_console, result_console
from cdi_dagster.cli.local_run import LocalRun, only_this_run, record, run_step
from cdi_dagster.cli.options import (
    allow_fewer_offsets_option,
    collection_option,
    corporate_root_option,
    correlation_id_option,
    given,
    override_gate_option,
    published_root_option,
    storage_day_option,
    verbose_option,
)
from cdi_dagster.cli.pin import pinned_facts
from cdi_dagster.cli.tables import publish_tables, require_tables_here, table_facts
from cdi_dagster.core.amounts import size_text
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.ingest_report import IngestReport
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.core.spark_jobs import INGEST_DAILY, PUBLISH_TABLES
from cdi_dagster.core.storage_keys import run_report_key
from cdi_dagster.core.tables_report import TablesReport

if TYPE_CHECKING:
    from cdi_dagster.ingestion.status_rows import StepRecord
    from cdi_dagster.storage.lease import Lease


@click.command("ingest")
@corporate_root_option()
@published_root_option()
@collection_option()
@storage_day_option()
@click.option("--dks-url", metavar="URL", help="Data Key Service. Default: CDI_DKS_URL, else where cdi dks listens.")
@click.option("--max-rejected", metavar="N|P%", help="Publish with at most N or P% rejects. Default: CDI_MAX_REJECTED.")
@click.option("--tables", is_flag=True, help="Publish the tables of the day too.")
@click.option("--allow-empty", is_flag=True, help="Publish a day without objects as an empty one.")
@click.option("--allow-sparse-offsets", is_flag=True, help="Accept fewer records than offsets (compacted topics).")
@correlation_id_option("Id of this run. Default: a new one.")
@allow_fewer_offsets_option()
@override_gate_option()
@verbose_option()
@json_option
def ingest_command(
    corporate_root: str | None,
    published_root: str | None,
    collection: Collection,
    storage_day: date,
    dks_url: str | None,
    max_rejected: str | None,
    tables: bool,
    allow_empty: bool,
    allow_fewer_offsets: bool,
    allow_sparse_offsets: bool,
    correlation_id: str | None,
    override_gate: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Pin a day, run the Spark job on this machine, publish; print counts, reject reasons and locations.

    Works without Dagster, and refuses to run beside the coalescer as Dagster's runs do. Run again, it publishes
    the day again, whole; if it fails, what was published before stays.
    """
    options = given(
        corporate_root=corporate_root, published_root=published_root, dks_url=dks_url, max_rejected=max_rejected
    )
    run = LocalRun.of(collection.on(storage_day), correlation_id=correlation_id, **options)
    if tables:
        require_tables_here(run)
    if run.settings.deployment != "local":
        note = f"CDI_DEPLOYMENT is {run.settings.deployment}: cdi ingest runs Spark on this machine all the same."
        progress_console().print(note, style="yellow")
    table_report = None
    with only_this_run(run) as lease, record(run, "pin") as row:
        pinned = _pin(
            run, row, allow_empty=allow_empty, allow_fewer_offsets=allow_fewer_offsets, override_gate=override_gate
        )
        row.begin(INGEST_DAILY.name)
        report = _ingest(run, pinned, lease, allow_sparse_offsets=allow_sparse_offsets, verbose=verbose)
        row.add_ingested(report, run.roots.published)
        if tables:
            row.begin(PUBLISH_TABLES.name)
            table_report = publish_tables(run, verbose=verbose)
            row.add_tables(table_report, run.roots.published)
    if as_json:
        locations = {"published_to": run.uri(report.published_prefix), "rejects_in": run.uri(report.rejects_prefix)}
        print_json(
            {
                "correlation_id": run.correlation_id,
                "collection": collection.id,
                "storage_day": storage_day,
                "export_day": export_day_of(storage_day),
                **report.to_json()["totals"],
                **locations,
                "published_bytes": report.published_bytes,
                "seconds": report.seconds,
                "tables": table_report and table_report.to_json(),
            }
        )
        return
    _show(result_console(), run, report, table_report)


def _pin(
    run: LocalRun, row: "StepRecord", *, allow_empty: bool, allow_fewer_offsets: bool, override_gate: bool
) -> PinnedInput:
    """Pin the day behind the gate."""
    from cdi_dagster.cli.gate import require_gate
    from cdi_dagster.ingestion.pinning import pin_storage_day, require_unchanged

    row.add_gate(require_gate(run.settings, run.roots, run.day, override=override_gate), overridden=override_gate)
    pinned = pin_storage_day(run.roots, run.day, allow_empty=allow_empty, allow_fewer_offsets=allow_fewer_offsets)
    row.add_pinned(pinned, allow_fewer_offsets=allow_fewer_offsets)
    # The second listing: what is the same in both was there, whole, at the moment between.
    require_unchanged(run.roots.corporate, pinned)
    progress_console().print(facts([*pinned_facts(pinned), ("run", run.correlation_id)]))
    return pinned


def _ingest(
    run: LocalRun, pinned: PinnedInput, lease: "Lease", *, allow_sparse_offsets: bool, verbose: bool
) -> IngestReport:
    """Run the Spark job; where it failed, first show the counts it reached.

    Raises:
        CdiError: of the class that the job stated, or that its end suggests.
    """
    from cdi_dagster.ingestion.ingestion_lease import discard_after_failure
    from cdi_dagster.ingestion.steps import ingest_step

    step = ingest_step(
        run.day,
        pinned,
        run.roots.published,
        correlation_id=run.correlation_id,
        key_service=run.settings.key_service,
        max_rejected=run.settings.max_rejected,
        allow_sparse_offsets=allow_sparse_offsets,
    )
    with discard_after_failure(run.roots.published, run.day, lease):
        report, error = run_step(run, step, run_report_key(run.day, run.correlation_id), verbose=verbose)
        if error:
            if report:
                _show(progress_console(), run, replace(IngestReport.from_json(report), published_prefix=None), None)
            raise error
    return IngestReport.from_json(report or {})


def _show(console: Console, run: LocalRun, report: IngestReport, table_report: TablesReport | None) -> None:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.totals["rejected_by_reason"].items())
    published = f"{report.published:,} records in {report.parts} parts, {size_text(report.published_bytes)}"
    if not report.published_prefix:
        published = f"nothing ({report.published:,} good records are held back)"
    rows = [
        (
            "collection",
            f"{run.day.collection.id}, storage day {run.day.storage_day}, export day {run.day.export_day}",
        ),
        (
            "read",
            f"{report.read:,} records of {report.totals['objects']} objects, {size_text(report.totals['input_bytes'])}",
        ),
        ("published", published),
        ("rejected", f"{report.rejected:,}" + (f": {reasons}" if reasons else "")),
        ("seconds", f"{report.seconds:.1f}"),
    ]
    if report.published_prefix:
        rows.append(("records in", run.uri(report.published_prefix) or ""))
    if report.rejects_prefix:
        rows.append(("rejects in", run.uri(report.rejects_prefix) or ""))
    console.print(facts([*rows, *(table_facts(table_report) if table_report else [])]))
