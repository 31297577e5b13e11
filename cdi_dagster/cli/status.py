"""`cdi status`: the coalescer's state for a day, the day's size against the usual, and how far the day is."""

from dataclasses import asdict
from datetime import date
from typing import Any

import click

from cdi_dagster.cli.console import facts, figures_table, json_option, print_json, result_console
from cdi_dagster.cli.options import (
    collection_option,
    corporate_root_option,
    given,
    published_root_option,
    storage_day_option,
)
from cdi_dagster.core.amounts import size_text
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.diagnosis import Diagnosis
from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass
from cdi_dagster.core.gate import CoalescerStatus
from cdi_dagster.ingestion.day_progress import DayProgress, day_progress
from cdi_dagster.ingestion.day_volumes import HISTORY_DAYS, DayVolumes
from cdi_dagster.storage.interface import Storage


@click.command("status")
@corporate_root_option()
@published_root_option()
@collection_option()
@storage_day_option()
@click.option(
    "--usual-days",
    type=click.IntRange(0, 60),
    default=HISTORY_DAYS,
    show_default=True,
    help="How many earlier days the usual is the median of.",
)
@json_option
def status_command(
    corporate_root: str | None,
    published_root: str | None,
    collection: Collection,
    storage_day: date,
    usual_days: int,
    as_json: bool,
) -> None:
    """Show the coalescer's state for a storage day and why, and its objects, bytes and offsets beside the usual.

    A coalescer is usually late because of very many small objects, or far more bytes than usual.
    """
    from cdi_dagster.cli.gate import coalescer_status
    from cdi_dagster.settings import load_settings
    from cdi_dagster.storage import open_roots
    from cdi_dagster.table_definitions import with_tables

    settings = load_settings(**given(corporate_root=corporate_root, published_root=published_root))
    roots = open_roots(settings.corporate_root, settings.published_root)
    day = with_tables(collection, settings.table_definitions).on(storage_day)
    status = coalescer_status(settings, roots, day)
    diagnosis = DayVolumes(history_days=usual_days).diagnosis(roots, day)
    progress = day_progress(roots, day, fingerprint=status.fingerprint)
    if as_json:
        print_json(_as_json(day, status, diagnosis, progress))
    else:
        _show(roots.corporate, day, status, diagnosis, progress)


def _as_json(
    day: CollectionDay, status: CoalescerStatus, diagnosis: Diagnosis, progress: DayProgress
) -> dict[str, Any]:
    return {
        "collection": day.collection.id,
        "storage_day": day.storage_day,
        "export_day": day.export_day,
        "coalescer": {
            "state": status.state,
            "reason": status.reason,
            "completed_at": status.completed_at and status.completed_at.isoformat(),
        },
        "gate_open": status.is_open,
        "day": asdict(diagnosis.day),
        "usual": asdict(diagnosis.usual) if diagnosis.usual else None,
        "verdict": diagnosis.summary,
        "objects_compare": diagnosis.objects_compare,
        **asdict(progress),
    }


def _show(
    corporate: Storage,
    day: CollectionDay,
    status: CoalescerStatus,
    diagnosis: Diagnosis,
    progress: DayProgress,
) -> None:
    console = result_console()
    console.print(f"[bold]{day.collection.id}[/], storage day {day.storage_day}, export day {day.export_day}")
    console.print(
        facts(
            [
                ("coalescer", f"{status.state}: {status.reason}"),
                ("gate", "open" if status.is_open else "closed: nothing starts"),
                ("size", diagnosis.summary),
                ("pinned", _current(progress.pinned, progress.pinned_is_current)),
                ("records published", _current(progress.published, progress.published_is_current)),
                ("tables published", _tables(progress)),
                ("objects under", corporate.uri(day.corporate_prefix)),
            ]
        )
    )
    if diagnosis.usual is None:
        return
    table = figures_table(None, ["", "this day", "usual"])
    volume, usual = diagnosis.day, diagnosis.usual
    # Once a day is coalesced, the number of objects that K2HB wrote is lost.
    usual_objects = f"{usual.objects:,}" if diagnosis.objects_compare else "does not compare"
    usual_size = size_text(usual.mean_object_bytes) if diagnosis.objects_compare else "does not compare"
    more_than = "more than " if volume.is_cut_off else ""
    table.add_row("objects", f"{more_than}{volume.objects:,}", usual_objects)
    table.add_row("records by offsets", f"{more_than}{volume.offsets:,}", f"{usual.offsets:,}")
    table.add_row("stored bytes", f"{more_than}{size_text(volume.bytes)}", size_text(usual.bytes))
    table.add_row("mean object", size_text(volume.mean_object_bytes), usual_size)
    console.print(table)


def _current(done: bool, is_current: bool) -> str:
    if not done:
        return "no"
    return "yes, from the objects that are there now" if is_current else "yes, but the objects have changed since"


def _tables(progress: DayProgress) -> str:
    if not progress.has_tables:
        return "none are defined: the records alone are the day"
    if not progress.missing_tables:
        return "yes, of these records"
    missing = ", ".join(progress.missing_tables)
    if not progress.published:
        return "no"
    guidance = FAILURE_GUIDE[FailureClass.TABLES_MISSING]
    return f"no, {FailureClass.TABLES_MISSING}: {missing}. {guidance.by_itself} {guidance.next_step}"
