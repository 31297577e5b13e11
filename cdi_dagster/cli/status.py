"""`cdi status`: how far a day is and what it waits for, or all of the last days in one table."""

import io
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.text import Text

from cdi_dagster.cli.console import facts, figures_table, json_option, print_json, result_console
from cdi_dagster.cli.options import (
    collection_option,
    corporate_root_option,
    given,
    published_root_option,
    storage_day_option,
)
from cdi_dagster.core.amounts import duration_text, size_text
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import days_before, storage_day_of, storage_days_between, storage_days_text
from cdi_dagster.core.diagnosis import Diagnosis
from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass, runbook_link
from cdi_dagster.core.gate import CoalescerStatus, class_of
from cdi_dagster.ingestion.day_progress import DayProgress, day_progress
from cdi_dagster.ingestion.day_volumes import HISTORY_DAYS, DayVolumes
from cdi_dagster.storage import Roots
from cdi_dagster.storage.interface import Storage

if TYPE_CHECKING:
    from cdi_dagster.cli.day_overview import DayOverview, RunSeen
    from cdi_dagster.settings import Settings

_FAILED, _NOT_YET = 1, 3
_WATCH_SECONDS = 10.0
_REASONS_SHOWN = 6
_STYLES = {"published": "green", "running": "cyan", "waiting": "yellow", "failed": "bold red"}


@click.command(
    "status",
    epilog="Exits 0 when the day is published, records and tables; 3 when it is not yet; 1 when it failed and nothing "
    "runs it again by itself (or its state cannot be read: class on stderr); 2 when used wrongly. Of all days: 1 where "
    "one failed, else 3 where one that is due is not published.",
)
@corporate_root_option()
@published_root_option()
@collection_option(required=False)
@storage_day_option(required=False)
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
    days: int,
    usual_days: int,
    watch: bool,
    as_json: bool,
) -> None:
    """Show a storage day: state, last run, next step, what is published, the coalescer, its size against the usual.

    Without --storage-day: a table of the last days, of one collection or of all. Runs come from the Dagster of
    DAGSTER_HOME (else the one below CDI_HOME); without one, from what they left in storage.
    """
    from cdi_dagster.settings import load_settings

    if storage_day and collection is None:
        raise click.UsageError("Missing option '--collection': a storage day is one of a collection")
    if watch and as_json and not storage_day:
        raise click.UsageError("--watch --json waits for one day: add --storage-day")
    settings = load_settings(**given(corporate_root=corporate_root, published_root=published_root))

    def look() -> "_DayView | _DaysView":
        if storage_day and collection:
            return _day_view(settings, collection, storage_day, usual_days)
        return _days_view(settings, collection, days)

    view = _watched(look, quietly=as_json) if watch else look()
    if as_json:
        print_json(view.to_json())
    elif not watch:
        result_console().print(view.shown())
    ctx.exit(view.exit_code)


def _watched(look: "Callable[[], _DayView | _DaysView]", *, quietly: bool) -> "_DayView | _DaysView":
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


def _overviews(
    settings: "Settings", roots: Roots, wanted: list[tuple[Collection, list[date]]]
) -> tuple[list["DayOverview"], tuple[str, ...]]:
    """Return the overviews, and what could not be read."""
    from cdi_dagster.cli.dagster_runs import open_dagster_runs
    from cdi_dagster.cli.day_overview import DayOverviews
    from cdi_dagster.resources.status_table import open_status_table

    with open_dagster_runs(settings) as runs:
        reader = DayOverviews(settings, roots, open_status_table(settings), runs, datetime.now(UTC))
        found = [overview for collection, days in wanted for overview in reader.of(collection, days)]
    return found, tuple(note for note in (runs.note, reader.rows_unreadable) if note)


@dataclass(frozen=True, kw_only=True)
class _DaysView:
    """The table of the last days, latest first."""

    settings: "Settings"
    overviews: list["DayOverview"]
    notes: tuple[str, ...]

    is_settled = False

    @property
    def exit_code(self) -> int:
        """1 where a day failed, else 3 where a due one is not published."""
        from cdi_dagster.cli.day_overview import is_due

        now = datetime.now(UTC)
        states = {overview.state for overview in self.overviews if is_due(overview, self.settings, now)}
        return _FAILED if "failed" in states else _NOT_YET if states & {"waiting", "running"} else 0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"days": [overview.to_json() for overview in self.overviews], "notes": self.notes}

    def shown(self) -> RenderableType:
        """Return it for a person."""
        table = figures_table(
            None, ["collection", "storage day", "state", "records", "rejects", "time", "cost"], words=3
        )
        for overview in self.overviews:
            table.add_row(
                overview.day.collection.id,
                str(overview.day.storage_day),
                Text(_in_a_cell(overview), style=_STYLES[overview.state]),
                _number(overview.records),
                _number(overview.rejects),
                "" if overview.seconds is None else duration_text(overview.seconds),
                "" if overview.cost_usd is None else f"{overview.cost_usd:.2f} USD",
            )
        notes = [*self._why(), *(f"Note: {note}." for note in self.notes)]
        return Group(table, *(Text(note, style="dim") for note in notes))

    def _why(self) -> list[str]:
        """Return one line for days that wait, or failed, for the same reason; of the first few reasons."""
        days: dict[tuple[str, str, str], list[date]] = defaultdict(list)
        for overview in self.overviews:
            if overview.state in ("waiting", "failed"):
                days[overview.day.collection.id, _in_a_cell(overview), overview.reason].append(overview.day.storage_day)
        return [
            f"{collection_id}, {storage_days_text(sorted(of_reason))}: {reason.rstrip('.')}."
            for (collection_id, _, reason), of_reason in list(days.items())[:_REASONS_SHOWN]
        ]


def _days_view(settings: "Settings", collection: Collection | None, count: int) -> _DaysView:
    from cdi_dagster.storage import open_roots
    from cdi_dagster.table_definitions import all_with_tables

    roots = open_roots(settings.corporate_root, settings.published_root)
    wanted = [collection] if collection else settings.ingested_collections
    collections = all_with_tables(wanted, settings.table_definitions)
    last = storage_day_of(datetime.now(UTC).date())
    first = max(settings.first_storage_day, days_before(last, count - 1))
    days = storage_days_between(first, last)[::-1]
    overviews, notes = _overviews(settings, roots, [(each, days) for each in collections])
    return _DaysView(settings=settings, overviews=overviews, notes=notes)


@dataclass(frozen=True, kw_only=True)
class _DayView:
    """One day."""

    settings: "Settings"
    corporate: Storage
    overview: "DayOverview"
    coalescer: CoalescerStatus
    diagnosis: Diagnosis
    progress: DayProgress
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 published, 1 failed, 3 not yet."""
        return {"published": 0, "failed": _FAILED}.get(self.overview.state, _NOT_YET)

    @property
    def is_settled(self) -> bool:
        """Whether it is published, or failed."""
        return self.exit_code != _NOT_YET

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        completed_at = self.coalescer.completed_at
        return {
            **self.overview.to_json(),
            "coalescer": {
                "state": self.coalescer.state,
                "reason": self.coalescer.reason,
                "completed_at": completed_at and completed_at.isoformat(),
            },
            "gate_open": self.coalescer.is_open,
            "day": asdict(self.diagnosis.day),
            "usual": asdict(self.diagnosis.usual) if self.diagnosis.usual else None,
            "size": self.diagnosis.summary,
            "objects_compare": self.diagnosis.objects_compare,
            **asdict(self.progress),
            "notes": self.notes,
        }

    def shown(self) -> RenderableType:
        """Return it for a person."""
        overview, progress = self.overview, self.progress
        day = overview.day
        rows = [
            ("state", f"{overview.state}: {overview.reason}"),
            *self._last_run(),
            ("coalescer", f"{self.coalescer.state}: {self.coalescer.reason}"),
            ("gate", "open" if self.coalescer.is_open else "closed: nothing starts"),
            ("size", self.diagnosis.summary),
            ("pinned", _current(progress.pinned, progress.pinned_is_current)),
            ("records published", _current(progress.published, progress.published_is_current, overview.records)),
            ("rejects", _rejects(overview)),
            ("tables published", _tables(progress, overview)),
            ("objects under", self.corporate.uri(day.corporate_prefix)),
            *(("note", note) for note in self.notes),
        ]
        title = f"[bold]{escape(day.collection.id)}[/], storage day {day.storage_day}, export day {day.export_day}"
        parts: list[RenderableType] = [Text.from_markup(title), facts(rows)]
        return Group(*parts, *self._against_usual())

    def _last_run(self) -> list[tuple[str, str]]:
        run = self.overview.last_run
        if run is None:
            return [("last run", "none"), *self._next_step()]
        rows = [("last run", _run_text(run))]
        if run.failure:
            rows.append(("failed with", f"{run.failure.failure_class}: {run.failure.cause}"))
        if run.failure and not (self._waits_for_gate or self.overview.state == "published"):
            rows += self._guidance(run.failure.failure_class, run.failure.next_step)
        else:
            rows += self._next_step()
        return [*rows, *([("link", run.url)] if run.url else [])]

    @property
    def _waits_for_gate(self) -> bool:
        """Whether the gate is what matters now: what the last run failed with may have been fixed."""
        waits_for = self.overview.waits_for
        return waits_for is not None and waits_for is class_of(self.coalescer)

    def _next_step(self) -> list[tuple[str, str]]:
        waits_for = self.overview.waits_for
        if waits_for is None:
            return []
        of_gate = self.coalescer.next_step if self._waits_for_gate else None
        return self._guidance(waits_for, of_gate or FAILURE_GUIDE[waits_for].next_step)

    def _guidance(self, failure_class: FailureClass, next_step: str) -> list[tuple[str, str]]:
        return [
            ("next step", next_step),
            ("owner", FAILURE_GUIDE[failure_class].owner),
            ("runbook", runbook_link(self.settings.runbook_url, failure_class)),
        ]

    def _against_usual(self) -> list[RenderableType]:
        diagnosis, volume, usual = self.diagnosis, self.diagnosis.day, self.diagnosis.usual
        if usual is None:
            return []
        table = figures_table(None, ["", "this day", "usual"])
        # Once a day is coalesced, the number of objects that K2HB wrote is lost.
        usual_objects = f"{usual.objects:,}" if diagnosis.objects_compare else "does not compare"
        usual_size = size_text(usual.mean_object_bytes) if diagnosis.objects_compare else "does not compare"
        more_than = "more than " if volume.is_cut_off else ""
        table.add_row("objects", f"{more_than}{volume.objects:,}", usual_objects)
        table.add_row("records by offsets", f"{more_than}{volume.offsets:,}", f"{usual.offsets:,}")
        table.add_row("stored bytes", f"{more_than}{size_text(volume.bytes)}", size_text(usual.bytes))
        table.add_row("mean object", size_text(volume.mean_object_bytes), usual_size)
        return [table]


def _day_view(settings: "Settings", collection: Collection, storage_day: date, usual_days: int) -> _DayView:
    from cdi_dagster.cli.gate import coalescer_status
    from cdi_dagster.storage import open_roots
    from cdi_dagster.table_definitions import with_tables

    roots = open_roots(settings.corporate_root, settings.published_root)
    day = with_tables(collection, settings.table_definitions).on(storage_day)
    status = coalescer_status(settings, roots, day)
    diagnosis = DayVolumes(history_days=usual_days).diagnosis(roots, day)
    progress = day_progress(roots, day, fingerprint=status.fingerprint)
    (overview,), notes = _overviews(settings, roots, [(day.collection, [storage_day])])
    return _DayView(
        settings=settings,
        corporate=roots.corporate,
        overview=overview,
        coalescer=status,
        diagnosis=diagnosis,
        progress=progress,
        notes=notes,
    )


def _in_a_cell(overview: "DayOverview") -> str:
    failure = overview.last_run.failure if overview.last_run else None
    if overview.state == "failed" and failure:
        return f"failed: {failure.failure_class}"
    if overview.state == "waiting" and overview.waits_for:
        return f"waiting: {overview.waits_for}"
    return str(overview.state)


def _run_text(run: "RunSeen") -> str:
    if run.started_at and not run.ended_at:
        return f"{run.run_id}, at work since {run.started_at:%Y-%m-%d %H:%M} UTC"
    if not run.ended_at:
        return f"{run.run_id}, queued"
    took = "" if run.seconds is None else f" after {duration_text(run.seconds)}"
    return f"{run.run_id}, {run.state.lower()} at {run.ended_at:%Y-%m-%d %H:%M} UTC{took}"


def _number(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _current(done: bool, is_current: bool, records: int | None = None) -> str:
    if not done:
        return "no"
    count = "yes" if records is None else f"{records:,}"
    return (
        f"{count}, from the objects that are there now"
        if is_current
        else f"{count}, but the objects have changed since"
    )


def _rejects(overview: "DayOverview") -> str:
    if overview.rejects is None:
        return "not known: no run has read the day"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in overview.rejected_by_reason.items() if count)
    return f"{overview.rejects:,}: {reasons} (cdi rejects show)" if overview.rejects else "none"


def _tables(progress: DayProgress, overview: "DayOverview") -> str:
    if not progress.has_tables:
        return "none are defined: the records alone are the day"
    if not progress.missing_tables:
        return "yes, of these records: " + ", ".join(f"{table.name} ({table.rows:,} rows)" for table in overview.tables)
    if not progress.published:
        return "no"
    missing = ", ".join(progress.missing_tables)
    next_step = FAILURE_GUIDE[FailureClass.TABLES_MISSING].next_step
    return f"no, {FailureClass.TABLES_MISSING}: {missing}. {next_step}"
