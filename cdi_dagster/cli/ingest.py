"""`cdi ingest`: one day without Dagster: gate, pin, Spark job on this machine, published records, counts.

The same steps and the same Spark job as the assets run; what it leaves is what they leave. Nothing else is started.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import click
from rich.console import Console

from cdi_dagster.cli.console import facts, json_option, print_json, progress_console, result_console, size_text
from cdi_dagster.cli.day_by_hand import DayByHand, Recorded, only_this_run, recorded, run_job
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
from cdi_dagster.core.collections import Collection, require_append_only
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.ingest_report import IngestReport
from cdi_dagster.core.storage_keys import pinned_input_history_key, run_report_key


@click.command("ingest")
@corporate_root_option()
@published_root_option()
@collection_option()
@storage_day_option()
@click.option("--dks-url", metavar="URL", help="Data Key Service. Default: CDI_DKS_URL, else where cdi dks listens.")
@click.option("--max-rejected", metavar="N|P%", help="Publish with at most so many rejects. Default: CDI_MAX_REJECTED.")
@click.option("--tables", is_flag=True, help="Publish the tables of the day too.")
@click.option("--allow-empty", is_flag=True, help="Publish a day without objects as an empty one.")
@click.option("--allow-sparse-offsets", is_flag=True, help="Accept fewer records than offsets (compacted topics).")
@correlation_id_option("Of this run. Default: a new one.")
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
    """Pin a day, run the Spark job on this machine, publish; print counts, reject reasons and places.

    Works without Dagster, and refuses to run beside the coalescer as Dagster's runs do. Asked again it publishes the
    day again, whole; if it fails, what was published before stays.
    """
    require_append_only(collection)
    options = given(
        corporate_root=corporate_root, published_root=published_root, dks_url=dks_url, max_rejected=max_rejected
    )
    run = DayByHand.of(collection.on(storage_day), correlation_id=correlation_id, **options)
    if tables:
        require_tables_here(run)
    flags = [
        *(["--allow-empty"] if allow_empty else []),
        *(["--allow-sparse-offsets"] if allow_sparse_offsets else []),
    ]
    table_report = None
    with only_this_run(run), recorded(run, "pin") as row:
        row.detail["gate_overridden"] = override_gate
        if allow_fewer_offsets:
            row.detail["allow_fewer_offsets"] = True
        manifest = _pin(
            run, row, allow_empty=allow_empty, allow_fewer_offsets=allow_fewer_offsets, override_gate=override_gate
        )
        row.step = "ingest_daily"
        report = _ingest(run, [*_ingest_arguments(run, manifest), *flags], verbose=verbose)
        row.s3_prefix = run.uri(report.published_prefix)
        row.detail |= dict(report.totals) | {"fingerprint": report.fingerprint}
        if tables:
            row.step = "publish_tables"
            table_report = publish_tables(run, verbose=verbose)
    if as_json:
        places = {"published_to": run.uri(report.published_prefix), "rejects_in": run.uri(report.rejects_prefix)}
        print_json(
            {
                "correlation_id": run.correlation_id,
                "collection": collection.id,
                "storage_day": storage_day,
                "export_day": export_day_of(storage_day),
                **report.to_json()["totals"],
                **places,
                "published_bytes": report.published_bytes,
                "seconds": report.seconds,
                "tables": table_report,
            }
        )
        return
    _show(result_console(), run, report, table_report)


def _pin(run: DayByHand, row: Recorded, *, allow_empty: bool, allow_fewer_offsets: bool, override_gate: bool) -> str:
    """Pin the day behind the gate, and return the URI of the kept manifest: nothing can put another in its place."""
    from cdi_dagster.cli.gate import require_gate
    from cdi_dagster.ingestion.pinning import pin_storage_day, require_unchanged

    gate = require_gate(run.settings, run.roots, run.day, override=override_gate)
    if not gate.is_open:
        row.detail["gate_was"] = f"{gate.state}: {gate.reason}"
    pinned = pin_storage_day(
        run.roots,
        run.day,
        allow_empty=allow_empty,
        allow_fewer_offsets=allow_fewer_offsets,
    )
    # The second look at the listing: what is the same in both was there, whole, at the moment between.
    require_unchanged(run.roots.corporate, pinned)
    progress_console().print(facts([*pinned_facts(pinned), ("run", run.correlation_id)]))
    return run.roots.published.uri(pinned_input_history_key(run.day, pinned.fingerprint))


def _ingest_arguments(run: DayByHand, manifest: str) -> list[str]:
    settings = run.settings
    arguments = [
        *("--pinned-input", manifest),
        *("--published-root", run.roots.published.root),
        *("--correlation-id", run.correlation_id),
        *("--max-rejected", settings.max_rejected),
        *("--dks-url", settings.dks_url),
        *("--dks-retry-budget-seconds", str(settings.dks_retry_budget_seconds)),
    ]
    for option, value in (
        ("--dks-ca", settings.dks_ca),
        ("--dks-certificate", settings.dks_certificate),
        ("--dks-private-key", settings.dks_private_key),
    ):
        arguments += [option, value] if value else []
    return arguments


def _ingest(run: DayByHand, arguments: Sequence[str], *, verbose: bool) -> IngestReport:
    """Run the Spark job; where it failed, show the counts that it came to first.

    Raises:
        CdiError: of the class that the job stated, or that its end suggests.
    """
    key = run_report_key(run.day, run.correlation_id)
    from cdi_dagster.ingestion.ingestion_lease import discard_after_failure

    with discard_after_failure(run.roots.published, run.day):
        report, error = run_job(run, "ingest_daily", arguments, key, verbose=verbose)
        if error:
            if report:
                _show(progress_console(), run, replace(IngestReport.from_json(report), published_prefix=None), None)
            raise error
    return IngestReport.from_json(report or {})


def _show(console: Console, run: DayByHand, report: IngestReport, table_report: dict[str, Any] | None) -> None:
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
    console.print(facts([*rows, *table_facts(table_report or {})]))
