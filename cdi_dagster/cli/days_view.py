"""The last days in one table, for a person: states, why some wait, and the snapshots of these days."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from cdi_dagster.cli.console import FAILED, NOT_YET, STATE_STYLES, figures_table
from cdi_dagster.cli.day_overview import DayOverview, is_due, open_day_overviews
from cdi_dagster.cli.snapshot_overview import SnapshotOverview, snapshot_overviews, snapshots_table
from cdi_dagster.clock import utc_now
from cdi_dagster.core.amounts import duration_text
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.days import days_before, export_day_of, storage_day_of, storage_days_between, storage_days_text
from cdi_dagster.core.snapshot import first_snapshot_day, is_snapshot_day
from cdi_dagster.settings import Settings
from cdi_dagster.storage import open_roots
from cdi_dagster.table_definitions import all_with_tables

_REASONS_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class DaysView:
    """The table of the last days, latest first, and that of the snapshots of these days."""

    settings: Settings
    overviews: list[DayOverview]
    snapshots: list[SnapshotOverview]
    notes: tuple[str, ...]

    is_settled = False

    @property
    def exit_code(self) -> int:
        """1 where a day or snapshot failed, else 3 where a due one is not published, or stale."""
        now = utc_now()
        states = {str(overview.state) for overview in self.overviews if is_due(overview, self.settings, now)}
        states |= {snapshot.state for snapshot in self.snapshots if snapshot.is_due(now)}
        return FAILED if "failed" in states else NOT_YET if states - {"published"} else 0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "days": [overview.to_json() for overview in self.overviews],
            "snapshots": [snapshot.to_json() for snapshot in self.snapshots],
            "notes": self.notes,
        }

    def shown(self) -> RenderableType:
        """Return it for a person."""
        table = figures_table(
            None, ["collection", "storage day", "state", "records", "rejects", "time", "cost"], words=3
        )
        for overview in self.overviews:
            table.add_row(
                overview.day.collection.id,
                str(overview.day.storage_day),
                Text(_in_a_cell(overview), style=STATE_STYLES[overview.state]),
                _number(overview.records),
                _number(overview.rejects),
                "" if overview.seconds is None else duration_text(overview.seconds),
                "" if overview.cost_usd is None else f"{overview.cost_usd:.2f} USD",
            )
        why, notes = self._why(), [f"Note: {note}." for note in self.notes]
        return Group(table, *map(_dim, why), *snapshots_table(self.snapshots), *map(_dim, notes))

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


def days_view(settings: Settings, collection: Collection | None, count: int) -> DaysView:
    """Return the view of so many last days, of one collection or of all that are ingested.

    Raises:
        StorageError: the storage does not respond.
    """
    roots = open_roots(settings.corporate_root, settings.published_root)
    wanted = [collection] if collection else settings.ingested_collections
    collections = all_with_tables(wanted, settings.table_definitions)
    last = storage_day_of(utc_now().date())
    first = max(settings.first_storage_day, days_before(last, count - 1))
    days = storage_days_between(first, last)[::-1]
    with open_day_overviews(settings, roots) as reader:
        overviews, snapshots = [], []
        for each in collections:
            overviews += reader.of(each, days)
            fridays = _snapshots_of(each, days, settings)
            snapshots += snapshot_overviews(settings, roots.published, reader.dagster_runs, fridays)
    return DaysView(settings=settings, overviews=overviews, snapshots=snapshots, notes=reader.notes)


def _snapshots_of(collection: Collection, days: list[date], settings: Settings) -> list[CollectionDay]:
    """Return the snapshots whose last storage day is one of these."""
    first = first_snapshot_day(settings.first_storage_day)
    fridays = {day: export_day_of(day) for day in days if is_snapshot_day(export_day_of(day))}
    return [collection.on(day) for day, friday in fridays.items() if collection.is_keyed and friday >= first]


def _in_a_cell(overview: DayOverview) -> str:
    failure = overview.last_run.failure if overview.last_run else None
    if overview.state == "failed" and failure:
        return f"failed: {failure.failure_class}"
    if overview.state == "waiting" and overview.waits_for:
        return f"waiting: {overview.waits_for}"
    return str(overview.state)


def _dim(text: str) -> Text:
    return Text(text, style="dim")


def _number(count: int | None) -> str:
    return "" if count is None else f"{count:,}"
