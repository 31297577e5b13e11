"""`cdi status`: how far a day or a snapshot is and what it waits for, or all of the last days in one table."""

import io
import time
from collections.abc import Callable
from datetime import date
from typing import Any, Protocol

import click
from rich.console import Console, RenderableType

from cdi_dagster.cli.console import json_option, print_json, result_console
from cdi_dagster.cli.options import (
    collection_option,
    corporate_root_option,
    given,
    published_root_option,
    snapshot_day_option,
    storage_day_option,
    wanted_snapshot,
)
from cdi_dagster.core.collections import Collection
from cdi_dagster.ingestion.day_volumes import HISTORY_DAYS

_WATCH_SECONDS = 10.0


@click.command(
    "status",
    epilog="Exits 0 when the day or snapshot is published, tables too; 3 when it is not yet, or is stale; 1 when it "
    "failed and nothing runs it again by itself (or its state cannot be read: class on stderr); 2 when used wrongly. "
    "Of all days: 1 where one failed, else 3 where one that is due is not published.",
)
@corporate_root_option()
@published_root_option()
@collection_option(required=False)
@storage_day_option(required=False)
@snapshot_day_option()
@click.option("--days", type=click.IntRange(1, 366), default=14, show_default=True, help="Days in the table.")
@click.option(
    "--usual-days",
    type=click.IntRange(0, 60),
    default=HISTORY_DAYS,
    show_default=True,
    help="How many earlier days the usual is the median of.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Show it again every 10 seconds: a day until it is published or failed, the table until Ctrl-C.",
)
@json_option
@click.pass_context
def status_command(
    ctx: click.Context,
    corporate_root: str | None,
    published_root: str | None,
    collection: Collection | None,
    storage_day: date | None,
    export_day: date | None,
    days: int,
    usual_days: int,
    watch: bool,
    as_json: bool,
) -> None:
    """Show a storage day: state, last run, next step, what is published, the coalescer, its size against the usual.

    With --export-day: the snapshot of a Friday. Without a day: a table of the last days, of one collection or of all,
    and of their snapshots. Runs come from the Dagster of DAGSTER_HOME (else the one below CDI_HOME); without one, from
    what they left in storage.
    """
    from cdi_dagster.settings import load_settings

    if storage_day and export_day:
        raise click.UsageError("Name a day by --storage-day, or a snapshot by --export-day, not both")
    if (storage_day or export_day) and collection is None:
        raise click.UsageError("Missing option '--collection': a day or snapshot is one of a collection")
    if watch and as_json and not (storage_day or export_day):
        raise click.UsageError("--watch --json waits for one day or snapshot: add --storage-day or --export-day")
    snapshot = wanted_snapshot(collection, export_day) if collection and export_day else None
    settings = load_settings(**given(corporate_root=corporate_root, published_root=published_root))

    def look() -> _View:
        if snapshot:
            from cdi_dagster.cli.snapshot_overview import snapshot_overview

            return snapshot_overview(settings, snapshot)
        if storage_day and collection:
            from cdi_dagster.cli.day_view import day_view

            return day_view(settings, collection, storage_day, usual_days)
        from cdi_dagster.cli.days_view import days_view

        return days_view(settings, collection, days)

    view = _watched(look, quietly=as_json) if watch else look()
    if as_json:
        print_json(view.to_json())
    elif not watch:
        result_console().print(view.shown())
    ctx.exit(view.exit_code)


class _View(Protocol):
    """A day, a snapshot, or many."""

    @property
    def exit_code(self) -> int: ...

    @property
    def is_settled(self) -> bool: ...

    def to_json(self) -> dict[str, Any]: ...

    def shown(self) -> RenderableType: ...


def _watched(look: Callable[[], _View], *, quietly: bool) -> _View:
    """Return the last look at what is published or failed; show every look before it unless `quietly`."""
    from rich.live import Live

    view = look()
    console = Console(file=io.StringIO()) if quietly else result_console()
    with Live(view.shown(), console=console, auto_refresh=False) as live:
        while not view.is_settled:
            time.sleep(_WATCH_SECONDS)
            view = look()
            live.update(view.shown(), refresh=True)
    return view
