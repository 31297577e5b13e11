"""`cdi snapshot status`: the last Fridays of a keyed collection: state, rows, and what each waits for. Only reads."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.text import Text

from cdi_dagster.cli.console import figures_table, json_option, print_json, result_console
from cdi_dagster.cli.options import collection_option, given, published_root_option
from cdi_dagster.core.collections import Collection, require_keyed
from cdi_dagster.core.days import due_at, storage_day_of
from cdi_dagster.core.launch_decision import LaunchAction, LaunchDecision, RunState
from cdi_dagster.core.snapshot import first_snapshot_day, snapshot_days
from cdi_dagster.core.snapshot_decision import SnapshotFacts, decide_snapshot

if TYPE_CHECKING:
    from cdi_dagster.settings import Settings

_FAILED, _NOT_YET = 1, 3
_STYLES = {"published": "green", "running": "cyan", "waiting": "yellow", "stale": "yellow", "failed": "bold red"}


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """One Friday."""

    facts: SnapshotFacts
    decision: LaunchDecision
    rows: dict[str, int] | None
    is_automated: bool

    @property
    def state(self) -> str:
        if self.facts.is_live:
            return "running"
        if self.facts.is_done:
            return "published"
        last = self.facts.runs[-1].state if self.facts.runs else RunState.SUCCEEDED
        has_failed = last is not RunState.SUCCEEDED and not self.is_automated
        if has_failed or self.decision.action is LaunchAction.LEAVE:
            return "failed"
        return "stale" if self.facts.is_stale else "waiting"

    def to_json(self) -> dict[str, Any]:
        return {
            "export_day": str(self.facts.export_day),
            "state": self.state,
            "is_stale": self.facts.is_stale,
            "reason": self.decision.reason,
            "missing_days": [str(day) for day in self.facts.missing_days],
            "missing_tables": list(self.facts.missing_tables),
            "rows": self.rows,
        }


@click.command("status")
@published_root_option()
@collection_option()
@click.option("--weeks", type=click.IntRange(1, 52), default=4, show_default=True, help="How many Fridays are shown.")
@json_option
@click.pass_context
def status_command(
    ctx: click.Context, published_root: str | None, collection: Collection, weeks: int, as_json: bool
) -> None:
    """Show the snapshots of the last Fridays: state, rows, what each waits for, and which are stale.

    Exits as `cdi status`: 1 where one failed, else 3 where a due one is not published, or stale; else 0.
    """
    from cdi_dagster.settings import load_settings

    require_keyed(collection)
    settings = load_settings(**given(published_root=published_root))
    now = datetime.now(UTC)
    seen, note = _look(settings, collection, weeks, now)
    if as_json:
        print_json({"snapshots": [each.to_json() for each in seen], "notes": [note] if note else []})
    else:
        result_console().print(_shown(seen, note))
    due = {each.state for each in seen if now >= due_at(storage_day_of(each.facts.export_day), settings.due_time)}
    ctx.exit(_FAILED if "failed" in due else _NOT_YET if due - {"published"} else 0)


def _look(settings: "Settings", collection: Collection, weeks: int, now: datetime) -> tuple[list[_Seen], str | None]:
    from cdi_dagster import names
    from cdi_dagster.cli.dagster_runs import open_dagster_runs
    from cdi_dagster.published.snapshot_facts import read_snapshot_facts
    from cdi_dagster.published.snapshots import read_snapshot_mark, snapshot_of
    from cdi_dagster.storage import open_storage
    from cdi_dagster.table_definitions import with_tables

    collection = with_tables(collection, settings.table_definitions)
    published = open_storage(settings.published_root)
    first = first_snapshot_day(settings.first_storage_day)
    fridays = [day for day in snapshot_days(now.date(), weeks=weeks) if day >= first]
    with open_dagster_runs(settings) as runs:
        past = runs.past_snapshot_runs(collection, fridays)
        is_automated = runs.is_on(names.snapshot_sensor_name(collection))
    seen = []
    for export_day in sorted(fridays, reverse=True):
        facts = read_snapshot_facts(
            published, collection, export_day, settings.first_storage_day, tables=export_day == max(fridays)
        )
        facts = replace(facts, runs=past[export_day])
        mark = read_snapshot_mark(published, snapshot_of(collection, export_day)) if facts.is_published else None
        rows = dict(mark.rows) if mark else None
        seen.append(_Seen(facts=facts, decision=decide_snapshot(facts, now), rows=rows, is_automated=is_automated))
    # What the snapshots are is known without Dagster; that a run of one failed is not.
    return seen, f"{runs.note.partition(': ')[0]}: which runs failed is not known" if runs.note else None


def _shown(seen: list[_Seen], note: str | None) -> Group:
    table = figures_table(None, ["export day", "state", "INSERT", "DELETE"], words=2)
    for each in seen:
        rows = each.rows or {}
        counts = [f"{rows[db_type]:,}" if db_type in rows else "" for db_type in ("INSERT", "DELETE")]
        table.add_row(str(each.facts.export_day), Text(each.state, style=_STYLES[each.state]), *counts)
    why = [
        f"{each.facts.export_day}: {each.decision.reason.rstrip('.')}." for each in seen if each.state != "published"
    ]
    notes = [*why, *([f"Note: {note}."] if note else [])]
    return Group(table, *(Text(line, style="dim") for line in notes))
