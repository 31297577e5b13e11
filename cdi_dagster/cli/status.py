"""`cdi status`: what the coalescer does with a day, how large the day is against the usual, and how far it got."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

import click

from cdi_dagster.cli.console import facts, figures_table, json_option, print_json, result_console, size_text
from cdi_dagster.cli.options import (
    collection_option,
    corporate_root_option,
    given,
    published_root_option,
    storage_day_option,
)
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of, storage_days_between
from cdi_dagster.core.gate import CoalescerStatus
from cdi_dagster.core.listing import StoredObject, listing_fingerprint
from cdi_dagster.core.object_names import InvalidObjectNameError, parse_object_name
from cdi_dagster.storage.interface import Storage


@dataclass(frozen=True, kw_only=True)
class DayFigures:
    """How large a storage day is.

    Attributes:
        raw_objects: as K2HB wrote them.
        coalesced_objects: as the coalescer wrote them.
        unknown_objects: whose names are of neither form.
        stored_bytes: compressed bytes of all.
        offsets: Kafka offsets that the names state; raw objects that a coalesced one covers count twice.
        kafka_partitions: Kafka partitions that occur.
    """

    raw_objects: int
    coalesced_objects: int
    unknown_objects: int
    stored_bytes: int
    offsets: int
    kafka_partitions: int

    @property
    def objects(self) -> int:
        """Objects of every kind."""
        return self.raw_objects + self.coalesced_objects + self.unknown_objects


def figures_of(listing: Iterable[StoredObject]) -> DayFigures:
    """Count a listing."""
    raw = coalesced = unknown = stored_bytes = offsets = 0
    kafka_partitions = set()
    for stored in listing:
        stored_bytes += stored.size_bytes
        try:
            name = parse_object_name(stored.key)
        except InvalidObjectNameError:
            unknown += 1
            continue
        coalesced += name.coalesced
        raw += not name.coalesced
        offsets += name.offset_count
        kafka_partitions.add(name.kafka_partition)
    return DayFigures(
        raw_objects=raw,
        coalesced_objects=coalesced,
        unknown_objects=unknown,
        stored_bytes=stored_bytes,
        offsets=offsets,
        kafka_partitions=len(kafka_partitions),
    )


@click.command("status")
@corporate_root_option()
@published_root_option()
@collection_option()
@storage_day_option()
@click.option(
    "--usual-days",
    type=click.IntRange(0, 60),
    default=7,
    show_default=True,
    help="Days before, whose median is the usual.",
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
    """Say what the coalescer does with a storage day and why, and its objects, bytes and offsets against the usual.

    Very many small objects, or far more bytes than usual, are why a coalescer is late.
    """
    from cdi_dagster.cli.gate import coalescer_status
    from cdi_dagster.settings import load_settings
    from cdi_dagster.storage.interface import open_storage

    settings = load_settings(**given(corporate_root=corporate_root, published_root=published_root))
    corporate, published = open_storage(settings.corporate_root), open_storage(settings.published_root)
    status = coalescer_status(settings, corporate, collection, storage_day)
    listing = list(corporate.list(collection.corporate_prefix(storage_day)))
    figures = figures_of(listing)
    usual = _usual(corporate, collection, storage_day, usual_days)
    progress = _progress(published, collection, storage_day, listing_fingerprint(listing))
    if as_json:
        print_json(_as_json(collection, storage_day, status, figures, usual, progress))
    else:
        _show(corporate, collection, storage_day, status, figures, usual, progress)


def _usual(corporate: Storage, collection: Collection, storage_day: date, days: int) -> dict[str, float]:
    """Return the median of each figure over the days before that have objects; empty where none has."""
    first, last = storage_day - timedelta(days=days), storage_day - timedelta(days=1)
    found = [figures_of(corporate.list(collection.corporate_prefix(day))) for day in storage_days_between(first, last)]
    rows = [{**asdict(figures), "objects": figures.objects} for figures in found if figures.objects]
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]} if rows else {}


def _progress(published: Storage, collection: Collection, storage_day: date, fingerprint: str) -> dict[str, Any]:
    """Return whether the day is pinned and published, and whether from the objects that are there now."""
    from cdi_dagster.ingestion.pinning import published_mark, read_pinned_input

    pinned = read_pinned_input(published, collection, storage_day)
    mark = published_mark(published, collection, storage_day)
    return {
        "pinned": pinned is not None,
        "pinned_is_current": pinned is not None and pinned.fingerprint == fingerprint,
        "published": mark is not None,
        "published_is_current": mark is not None and mark.get("fingerprint") == fingerprint,
        "published_records": mark.get("published") if mark else None,
    }


def _as_json(
    collection: Collection,
    storage_day: date,
    status: CoalescerStatus,
    figures: DayFigures,
    usual: dict[str, float],
    progress: dict[str, Any],
) -> dict[str, Any]:
    return {
        "collection": collection.id,
        "storage_day": storage_day,
        "export_day": export_day_of(storage_day),
        "coalescer": {
            "state": status.state,
            "reason": status.reason,
            "completed_at": status.completed_at and status.completed_at.isoformat(),
        },
        "gate_open": status.is_open,
        "figures": {**asdict(figures), "objects": figures.objects},
        "usual": usual,
        **progress,
    }


def _show(
    corporate: Storage,
    collection: Collection,
    storage_day: date,
    status: CoalescerStatus,
    figures: DayFigures,
    usual: dict[str, float],
    progress: dict[str, Any],
) -> None:
    console = result_console()
    console.print(f"[bold]{collection.id}[/], storage day {storage_day}, export day {export_day_of(storage_day)}")
    console.print(
        facts(
            [
                ("coalescer", f"{status.state}: {status.reason}"),
                ("gate", "open" if status.is_open else "closed: nothing starts"),
                ("pinned", _current(progress["pinned"], progress["pinned_is_current"])),
                ("published", _current(progress["published"], progress["published_is_current"])),
                ("objects under", corporate.uri(collection.corporate_prefix(storage_day))),
            ]
        )
    )
    table = figures_table(None, ["", "this day", "usual"])
    rows = (("raw_objects", "raw objects"), ("coalesced_objects", "coalesced objects"), ("offsets", "offsets"))
    for name, heading in rows:
        table.add_row(heading, f"{getattr(figures, name):,}", f"{usual[name]:,.0f}" if usual else "-")
    if figures.unknown_objects:
        table.add_row("objects with a wrong name", f"{figures.unknown_objects:,}", "0")
    table.add_row("stored bytes", size_text(figures.stored_bytes), size_text(usual["stored_bytes"]) if usual else "-")
    table.add_row("bytes an object", _mean_size(figures.stored_bytes, figures.objects), _usual_mean_size(usual))
    console.print(table)


def _current(done: bool, is_current: bool) -> str:
    if not done:
        return "no"
    return "yes, from the objects that are there now" if is_current else "yes, but the objects have changed since"


def _mean_size(stored_bytes: float, objects: float) -> str:
    return size_text(stored_bytes / objects) if objects else "-"


def _usual_mean_size(usual: dict[str, float]) -> str:
    return _mean_size(usual["stored_bytes"], usual["objects"]) if usual else "-"
