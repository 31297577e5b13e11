"""`cdi show`: some records of a published day, or where one event of it went; the mark and runs of a snapshot."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from cdi_dagster.cli.console import facts, json_option, print_json, progress_console, result_console
from cdi_dagster.cli.options import (
    collection_option,
    corporate_root_option,
    correlation_id_option,
    given,
    published_root_option,
    snapshot_day_option,
    storage_day_option,
    wanted_snapshot,
)
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import INGEST_REPORT, daily_prefix, run_report_key, runs_prefix
from cdi_dagster.storage import ObjectMissingError, Roots, Storage

if TYPE_CHECKING:
    from cdi_dagster.core.ingest_report import IngestReport
    from cdi_dagster.settings import Settings
    from cdi_dagster.spark.ingest.trace import EventTrace, TracedRun

_EVENT = re.compile(r"(?P<kafka_partition>[0-9]{1,9}):(?P<offset>[0-9]{1,18})")


class EventType(click.ParamType):
    """A Kafka partition and offset."""

    name = "partition:offset"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read the two numbers, or fail with how to write them."""
        found = _EVENT.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no event: write <Kafka partition>:<offset>, for example 3:1042", param, ctx)
        return int(found["kafka_partition"]), int(found["offset"])


@click.command("show")
@corporate_root_option()
@published_root_option()
@collection_option()
@storage_day_option(required=False)
@snapshot_day_option()
@click.option("--limit", type=click.IntRange(1, 10_000), help="Records to show. Default: 10.")
@click.option("--trace", type=EventType(), metavar="PARTITION:OFFSET", help="Show where this event of Kafka went.")
@correlation_id_option("With --trace: the run to look at. Default: the one that published, else the last that read.")
@json_option
def show_command(
    corporate_root: str | None,
    published_root: str | None,
    collection: Collection,
    storage_day: date | None,
    export_day: date | None,
    limit: int | None,
    trace: tuple[int, int] | None,
    correlation_id: str | None,
    as_json: bool,
) -> None:
    """Show the first records or rows of a published day, a JSON text a line: decrypted, so mind who reads the terminal.

    With --trace where one event went: object, line, and the part that holds its record, or why it was rejected.
    Nothing of its content is read or shown then.

    With --export-day the snapshot of a Friday: base, days, rows in and out, tables, and its runs; no rows.
    """
    from cdi_dagster.settings import load_settings

    if (storage_day is None) == (export_day is None):
        raise click.UsageError("Name a day by --storage-day, or the snapshot of a Friday by --export-day")
    settings = load_settings(**given(corporate_root=corporate_root, published_root=published_root))
    if export_day:
        snapshot = wanted_snapshot(collection, export_day)
        if limit or trace or correlation_id:
            raise click.UsageError("--limit, --trace and --correlation-id are of a day: name it by --storage-day")
        _show_snapshot(settings, snapshot, as_json=as_json)
    elif storage_day:
        _show_day(settings, collection.on(storage_day), limit or 10, trace, correlation_id, as_json=as_json)


def _show_snapshot(settings: "Settings", day: CollectionDay, *, as_json: bool) -> None:
    from cdi_dagster.cli.snapshot_overview import snapshot_overview

    overview = snapshot_overview(settings, day)
    if overview.mark is None:
        why = overview.facts.unreadable or "is not published."
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"The snapshot of {day.collection.id} for {day.export_day} {why}",
            next_step=f"cdi status --collection {day.collection.id} --export-day {day.export_day} shows what it waits "
            "for, and its last run.",
        )
    if as_json:
        print_json({**overview.to_json(), "mark": overview.mark.to_json()})
    else:
        result_console().print(overview.shown_mark(overview.mark))


def _show_day(
    settings: "Settings",
    day: CollectionDay,
    limit: int,
    trace: tuple[int, int] | None,
    correlation_id: str | None,
    *,
    as_json: bool,
) -> None:
    from cdi_dagster.storage import open_roots

    roots = open_roots(settings.corporate_root, settings.published_root)
    if trace is None:
        _show_records(roots.published, day, limit, as_json=as_json)
        return
    from cdi_dagster.spark.ingest.trace import trace_event

    run = _traced_run(roots, day, correlation_id)
    traced = trace_event(roots, day, run, *trace)
    if as_json:
        print_json({"collection": day.collection.id, "storage_day": day.storage_day, **asdict(traced)})
    else:
        result_console().print(facts(_rows(roots, day, traced)))


def _show_records(published: Storage, day: CollectionDay, limit: int, *, as_json: bool) -> None:
    from cdi_dagster.published.read import require_published_parts

    mark = require_published_parts(published, day)
    records: list[str] = []
    for part in mark.parts:
        if len(records) >= limit:
            break
        lines = _rows_of_part(published, part.key) if day.collection.is_keyed else _lines_of_part(published, part.key)
        records += islice(lines, limit - len(records))
    if as_json:
        # As texts: a JSON library need not keep the numbers of a record as they are.
        print_json(
            {
                "published": mark.published,
                "prefix": published.uri(daily_prefix(day).rstrip("/")) if mark.parts else None,
                "records": records,
            }
        )
        return
    for record in records:
        click.echo(record)
    what = "rows" if day.collection.is_keyed else "records"
    progress_console().print(f"{len(records):,} of {mark.published:,} {what} of {day}")


def _lines_of_part(published: Storage, key: str) -> Iterator[str]:
    from isal import igzip

    with published.open(key) as source, igzip.open(source) as lines:
        for line in lines:
            yield line.decode().rstrip("\n")


def _rows_of_part(published: Storage, key: str) -> Iterator[str]:
    from cdi_dagster.spark.tables.orc.reader import read_rows

    for row in read_rows(published.read(key)):
        yield json.dumps(row, ensure_ascii=False)


def _traced_run(roots: Roots, day: CollectionDay, correlation_id: str | None) -> "TracedRun":
    from cdi_dagster.ingestion.pinning import read_pinned_input
    from cdi_dagster.published.read import read_publication
    from cdi_dagster.published.runs import last_run
    from cdi_dagster.spark.ingest.trace import TracedRun

    publication = read_publication(roots.published, day)
    if publication and correlation_id in (None, publication.mark.correlation_id):
        return TracedRun(pinned=publication.pinned, report=publication.report, mark=publication.mark)
    last = None if correlation_id else last_run(roots.published, day, wrote=INGEST_REPORT)
    run_id = correlation_id or (last[0] if last else None)
    report = _report(roots.published, day, run_id) if run_id else None
    if correlation_id and report is None:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"Run {correlation_id} of {day} has left no report in {roots.published.uri(runs_prefix(day))}.",
            next_step="Name another run, or none: cdi status shows the last one.",
        )
    pinned = read_pinned_input(roots.published, day)
    if report and (pinned is None or pinned.fingerprint != report.fingerprint):
        pinned = _earlier_pin(roots.published, day, report.fingerprint) or pinned
    if pinned is None:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{day} was never pinned, so nothing of it was read.",
            next_step="Run the day, or cdi pin: then it is known which objects it has.",
        )
    matches = report is not None and report.fingerprint == pinned.fingerprint
    return TracedRun(pinned=pinned, report=report if matches else None, mark=None)


def _report(published: Storage, day: CollectionDay, run_id: str) -> "IngestReport | None":
    from cdi_dagster.core.ingest_report import IngestReport

    try:
        return IngestReport.from_json(json.loads(published.read(run_report_key(day, run_id))))
    except (ObjectMissingError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _earlier_pin(published: Storage, day: CollectionDay, fingerprint: str) -> Any:
    from cdi_dagster.core.pinned_input import PinnedInput
    from cdi_dagster.core.storage_keys import pinned_input_history_key

    try:
        return PinnedInput.from_json(json.loads(published.read(pinned_input_history_key(day, fingerprint))))
    except (ObjectMissingError, ValueError):
        return None


def _rows(roots: Roots, day: CollectionDay, traced: "EventTrace") -> list[tuple[str, str]]:
    rows = [
        ("event", f"Kafka partition {traced.kafka_partition}, offset {traced.offset}, of {day}"),
        ("became", f"{traced.fate}: {traced.text}"),
    ]
    if traced.object_key and traced.lines:
        first, last = traced.lines
        rows.append(("object", roots.corporate.uri(traced.object_key)))
        rows.append(("line", f"{first}" if first == last else f"one of {first} to {last}"))
    if traced.reason:
        rows.append(("reason", f"{traced.reason}: {traced.detail}"))
    if traced.part_key:
        rows.append(("part", roots.published.uri(traced.part_key)))
        rows.append(("line of part", f"{traced.part_line}"))
    return rows
