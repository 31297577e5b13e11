"""`cdi ingest`: one day without Dagster: gate, pin, Spark job on this machine, published records, counts.

The same steps and the same Spark job as the assets run; what it leaves is what they leave. Nothing else is started.
"""

import json
import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from cdi_dagster.cli.console import (
    facts,
    json_option,
    print_json,
    progress_console,
    result_console,
    saying,
    size_text,
)
from cdi_dagster.cli.options import (
    collection_option,
    corporate_root_option,
    correlation_id_option,
    given,
    override_gate_option,
    published_root_option,
    storage_day_option,
)
from cdi_dagster.cli.pin import pinned_facts
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.ingest_report import IngestReport
from cdi_dagster.core.places import pinned_input_history_key, run_prefix, run_report_key, tables_report_key
from cdi_dagster.ingestion.only_ingestion import only_ingestion
from cdi_dagster.settings import Settings, load_settings
from cdi_dagster.storage.interface import ObjectMissingError, Storage, open_storage


@dataclass(frozen=True, kw_only=True)
class _Day:
    """One day to ingest, and where."""

    settings: Settings
    corporate: Storage
    published: Storage
    collection: Collection
    storage_day: date
    correlation_id: str


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
@override_gate_option()
@click.option("--verbose", is_flag=True, help="Show Spark's own log too.")
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
    settings = load_settings(
        **given(
            corporate_root=corporate_root, published_root=published_root, dks_url=dks_url, max_rejected=max_rejected
        )
    )
    day = _Day(
        settings=settings,
        corporate=open_storage(settings.corporate_root),
        published=open_storage(settings.published_root),
        collection=collection,
        storage_day=storage_day,
        correlation_id=correlation_id or str(uuid.uuid4()),
    )
    flags = [
        *(["--allow-empty"] if allow_empty else []),
        *(["--allow-sparse-offsets"] if allow_sparse_offsets else []),
    ]
    with only_ingestion(day.published, collection, storage_day, holder=day.correlation_id):
        manifest = _pin(day, allow_empty=allow_empty, override_gate=override_gate)
        key = run_report_key(collection, storage_day, day.correlation_id)
        arguments = _ingest_arguments(day, manifest, flags)
        report = IngestReport.from_json(_run(day, "ingest_daily", arguments, key, verbose=verbose))
    table_report = None
    if tables:
        key = tables_report_key(collection, storage_day, day.correlation_id)
        table_report = _run(day, "publish_tables", _tables_arguments(day), key, verbose=verbose)
    if as_json:
        places = {"published_to": _uri(day, report.published_prefix), "rejects_in": _uri(day, report.rejects_prefix)}
        print_json(
            {
                "correlation_id": day.correlation_id,
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
    _show(result_console(), day, report, table_report)


def _pin(day: _Day, *, allow_empty: bool, override_gate: bool) -> str:
    """Pin the day behind the gate, and return the URI of the kept manifest: nothing can put another in its place."""
    from cdi_dagster.cli.gate import require_gate
    from cdi_dagster.ingestion.pinning import pin_storage_day, require_unchanged

    require_gate(day.settings, day.corporate, day.published, day.collection, day.storage_day, override=override_gate)
    pinned = pin_storage_day(day.corporate, day.published, day.collection, day.storage_day, allow_empty=allow_empty)
    # The second look at the listing: what is the same in both was there, whole, at the moment between.
    require_unchanged(day.corporate, pinned)
    progress_console().print(facts([*pinned_facts(pinned), ("run", day.correlation_id)]))
    return day.published.uri(pinned_input_history_key(day.collection, day.storage_day, pinned.fingerprint))


def _ingest_arguments(day: _Day, manifest: str, flags: Sequence[str]) -> list[str]:
    settings = day.settings
    arguments = [
        *("--pinned-input", manifest),
        *("--published-root", day.published.root),
        *("--correlation-id", day.correlation_id),
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
    return [*arguments, *flags]


def _tables_arguments(day: _Day) -> list[str]:
    return [
        *("--published-root", day.published.root),
        *("--collection", day.collection.id),
        *("--storage-day", str(day.storage_day)),
        *("--correlation-id", day.correlation_id),
    ]


def _run(day: _Day, step: str, arguments: Sequence[str], report_key: str, *, verbose: bool) -> dict[str, Any]:
    """Run one Spark job and return its closing report.

    Raises:
        CdiError: of the class that the job stated, or that its end suggests.
    """
    from cdi_dagster.ingestion.local_metastore import local_metastore_conf, turn_at_local_metastore
    from cdi_dagster.ingestion.spark_process import run_spark_step, verdict
    from cdi_dagster.ingestion.spark_submit import SparkProcessConfig

    settings = day.settings
    config = SparkProcessConfig(
        work_folder=settings.home / "runs",
        master=settings.spark_master,
        driver_memory=settings.spark_driver_memory,
        conf={**local_metastore_conf(settings.metastore_path), **settings.spark_conf},
        s3a_jars=settings.s3a_jars,
    )
    mark = f"[{day.correlation_id}] "
    # Only the tables need the metastore, which takes one process at a time.
    turn = turn_at_local_metastore(settings.metastore_path) if step == "publish_tables" else nullcontext()
    with turn, saying(f"Running {step}") as say:

        def hear(line: str) -> None:
            text = line.partition(mark)[2].partition(": ")[2]
            if text and " is done: " not in text:
                say(text)
            elif verbose:
                progress_console().print(escape(line), style="dim")

        ended = run_spark_step(step, arguments, config=config, correlation_id=day.correlation_id, on_line=hear)
    report = _read(day, report_key)
    failure = _read(day, f"{run_prefix(day.collection, day.storage_day, day.correlation_id)}failure.json")
    error = verdict(ended.exit_code, ended.log_tail, report, failure if ended.exit_code else None)
    if error:
        if report and step == "ingest_daily":
            _show(progress_console(), day, IngestReport.from_json(report), None)
        progress_console().print(f"Log: {escape(str(ended.log_path))}")
        raise error
    return report or {}


def _read(day: _Day, key: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(day.published.read(key)))
    except ObjectMissingError:
        return None


def _uri(day: _Day, prefix: str | None) -> str | None:
    return day.published.uri(prefix) if prefix else None


def _show(console: Console, day: _Day, report: IngestReport, table_report: dict[str, Any] | None) -> None:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.totals["rejected_by_reason"].items())
    published = f"{report.published:,} records in {report.parts} parts, {size_text(report.published_bytes)}"
    if not report.published_prefix:
        published = f"nothing ({report.published:,} good records are held back)"
    rows = [
        (
            "collection",
            f"{day.collection.id}, storage day {day.storage_day}, export day {export_day_of(day.storage_day)}",
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
        rows.append(("records in", _uri(day, report.published_prefix) or ""))
    if report.rejects_prefix:
        rows.append(("rejects in", _uri(day, report.rejects_prefix) or ""))
    for table in (table_report or {}).get("tables", []):
        rows.append((f"{table['kind']} table", f"{table['name']}: {table['rows']:,} rows"))
    console.print(facts(rows))
