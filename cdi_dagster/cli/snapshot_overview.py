"""The state of a snapshot for a person: published, stale, being made, waiting or failed; its mark, tables and runs.

From its mark in storage, and Dagster's run records where there are any. Only reads; `cdi status` and `cdi show` print
what is here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from cdi_dagster.cli.console import NOT_YET, STATE_STYLES, facts, figures_table, state_exit_code, state_text
from cdi_dagster.cli.dagster_runs import DagsterRuns, open_dagster_runs
from cdi_dagster.cli.run_seen import RunSeen, run_of_dagster
from cdi_dagster.clock import utc_now
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.days import due_at, export_day_of, latest_due_storage_day
from cdi_dagster.core.failures import FAILURE_GUIDE, runbook_link
from cdi_dagster.core.launch_decision import LaunchAction, LaunchDecision, RunState
from cdi_dagster.core.snapshot import snapshot_days
from cdi_dagster.core.snapshot_decision import SnapshotFacts, decide_snapshot, due_snapshots
from cdi_dagster.core.storage_keys import snapshot_prefix
from cdi_dagster.core.tables_report import PublishedTable
from cdi_dagster.published.snapshot_facts import read_snapshot
from cdi_dagster.published.snapshot_mark import SnapshotMark
from cdi_dagster.published.tables import shown_tables
from cdi_dagster.settings import Settings
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster.table_definitions import with_tables


@dataclass(frozen=True, kw_only=True)
class SnapshotOverview:
    """The state of the snapshot of one Friday.

    Attributes:
        day: by which it is named: the collection, and its last storage day.
        facts: what its sensor knows, but for what Dagster has recorded.
        decision: what its sensor does by them.
        is_automated: whether the sensor makes it: it is on, and the snapshot is one of the look-back.
        runs: that made it or would have, or its tables, oldest first.
        mark: of what is published, where it is.
        tables: that were made from that.
        prefix: where it is published, as a URI.
        settings: for links.
        note: why runs are not known, where they are not.
    """

    day: CollectionDay
    facts: SnapshotFacts
    decision: LaunchDecision
    is_automated: bool
    runs: tuple[RunSeen, ...]
    mark: SnapshotMark | None
    tables: tuple[PublishedTable, ...]
    prefix: str
    settings: Settings
    note: str | None

    @property
    def state(self) -> str:
        """In one word."""
        if self.facts.is_live:
            return "running"
        if self.facts.is_done:
            return "published"
        has_failed = bool(self.runs) and self.runs[-1].state is not RunState.SUCCEEDED and not self.is_automated
        if has_failed or self.facts.unreadable or self.decision.action is LaunchAction.LEAVE:
            return "failed"
        return "stale" if self.facts.is_stale else "waiting"

    @property
    def reason(self) -> str:
        """In a sentence."""
        is_retry = self.decision.action is LaunchAction.WAIT and self.state == "failed" and not self.facts.unreadable
        if (self.decision.action is LaunchAction.LAUNCH or is_retry) and not self.is_automated:
            return f"{self.decision.reason}; nothing launches it by itself: materialise it, or cdi relaunch"
        return self.decision.reason

    @property
    def exit_code(self) -> int:
        """0 published, 1 failed, 3 not yet, or stale."""
        return state_exit_code(self.state)

    @property
    def is_settled(self) -> bool:
        """Whether it is published, or failed."""
        return self.exit_code != NOT_YET

    def is_due(self, now: datetime) -> bool:
        """Whether it counts for the exit code of the table."""
        return now >= due_at(self.day.storage_day, self.settings.due_time)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "collection": self.day.collection.id,
            "export_day": str(self.day.export_day),
            "state": self.state,
            "is_stale": self.facts.is_stale,
            "reason": self.reason,
            "missing_days": [str(day) for day in self.facts.missing_days],
            "missing_tables": list(self.facts.missing_tables),
            "rows": dict(self.mark.rows) if self.mark else None,
            "tables": {table.name: table.rows for table in self.tables},
            "prefix": self.prefix,
            "runs": [run.to_json() for run in self.runs],
            "notes": [self.note] if self.note else [],
        }

    def shown(self) -> RenderableType:
        """Return its state for a person."""
        rows = [("state", state_text(self.state, self.reason)), *self._last_run()]
        if self.mark:
            rows += [("rows", rows_text(self.mark.rows)), ("tables", self._tables())]
        return self._with_title([*rows, ("snapshot under", self.prefix)])

    def shown_mark(self, mark: SnapshotMark) -> RenderableType:
        """Return for a person what the mark states, the tables, and every run."""
        used = mark.made_from
        rows = [
            ("state", state_text(self.state, self.reason)),
            ("made by", f"{mark.correlation_id}, {mark.published_at:%Y-%m-%d %H:%M} UTC"),
            *(made_facts(used.base.export_day if used.base else None, list(used.days)) if used else _ADOPTED),
            ("rows in", rows_text(mark.rows_in)),
            ("rows", rows_text(mark.rows)),
            ("files", f"{len(mark.parts):,} in {len(mark.id_parts)} id_parts, {mark.stored_bytes:,} bytes"),
            ("published", self.prefix),
            ("tables", self._tables()),
            *((("runs" if not number else ""), _run_line(run)) for number, run in enumerate(reversed(self.runs))),
        ]
        return self._with_title(rows)

    def _with_title(self, rows: list[tuple[str, str]]) -> RenderableType:
        notes = [("note", self.note)] if self.note else []
        title = Text.assemble((self.day.collection.id, "bold"), f", snapshot of Friday {self.day.export_day}")
        return Group(title, facts([*rows, *notes]))

    def _tables(self) -> str:
        if not self.day.collection.snapshot_table_names:
            return "none are defined"
        if missing := self.facts.missing_tables:
            return f"not published: {', '.join(missing)}"
        return ", ".join(f"{table.name} ({table.rows:,} rows)" for table in self.tables) or "none were made from it"

    def _last_run(self) -> list[tuple[str, str]]:
        if not self.runs:
            return []
        run = self.runs[-1]
        rows = [("last run", run.text)]
        if run.failure and self.state != "published":
            failure = run.failure
            rows += [
                ("failed with", f"{failure.failure_class}: {failure.cause}"),
                ("next step", failure.next_step),
                ("owner", FAILURE_GUIDE[failure.failure_class].owner),
                ("runbook", runbook_link(self.settings.runbook_url, failure.failure_class)),
            ]
        return [*rows, ("link", run.url or "")]


_ADOPTED = [("base", "none: it was copied from the old system, and adopted")]


def snapshot_overview(settings: Settings, day: CollectionDay) -> SnapshotOverview:
    """Return the overview of one snapshot.

    Raises:
        StorageError: the storage does not respond.
    """
    published = open_storage(settings.published_root)
    day = with_tables(day.collection, settings.table_definitions).on(day.storage_day)
    with open_dagster_runs(settings) as dagster:
        return snapshot_overviews(settings, published, dagster, [day])[0]


def snapshot_overviews(
    settings: Settings, published: Storage, dagster: DagsterRuns, days: Sequence[CollectionDay]
) -> list[SnapshotOverview]:
    """Return the overviews of snapshots of one collection, each named by its last storage day.

    Raises:
        StorageError: the storage does not respond.
    """
    from cdi_dagster import names

    if not days:
        return []
    collection, now = days[0].collection, utc_now()
    past = dagster.past_snapshot_runs(collection, [day.export_day for day in days])
    is_on = dagster.is_on(names.snapshot_sensor_name(collection))
    automated = due_snapshots(settings.calendar, now)
    latest_due = export_day_of(latest_due_storage_day(now, settings.due_time))
    (newest,) = snapshot_days(latest_due, weeks=1)  # a table shows one snapshot
    overviews = []
    for day in days:
        facts_of, mark = read_snapshot(
            published, collection, day.export_day, settings.first_storage_day, tables=day.export_day == newest
        )
        known = replace(facts_of, runs=past[day.export_day])
        overviews.append(
            SnapshotOverview(
                day=day,
                facts=known,
                decision=decide_snapshot(known, now),
                is_automated=is_on and day.export_day in automated,
                runs=tuple(run_of_dagster(run, dagster, settings) for run in past[day.export_day]),
                mark=mark,
                tables=shown_tables(published, day, snapshot=mark) if mark else (),
                prefix=published.uri(snapshot_prefix(day)),
                settings=settings,
                note=dagster.note and f"{dagster.note.partition(': ')[0]}: which runs failed is not known",
            )
        )
    return overviews


def snapshots_table(overviews: Sequence[SnapshotOverview]) -> list[RenderableType]:
    """Return the table of snapshots, and a line of each that is not published; nothing where there are none."""
    if not overviews:
        return []
    table = figures_table(None, ["collection", "snapshot", "state", "INSERT", "DELETE"], words=3)
    for each in overviews:
        rows = each.mark.rows if each.mark else {}
        counts = [f"{rows[db_type]:,}" if db_type in rows else "" for db_type in ("INSERT", "DELETE")]
        state = Text(each.state, style=STATE_STYLES[each.state])
        table.add_row(each.day.collection.id, str(each.day.export_day), state, *counts)
    notes = [
        f"{each.day.collection.id}, snapshot of {each.day.export_day}: {each.reason.rstrip('.')}."
        for each in overviews
        if each.state != "published"
    ]
    return [table, *(Text(note, style="dim") for note in notes)]


def rows_text(rows: Mapping[str, int]) -> str:
    """Return rows by `db_type` as text."""
    by_type = ", ".join(f"{db_type} {count:,}" for db_type, count in rows.items())
    return f"{sum(rows.values()):,} ({by_type})" if rows else "not counted"


def made_facts(base: date | str | None, days: Sequence[date | str]) -> list[tuple[str, str]]:
    """Return from which base and days a snapshot was made."""
    return [
        ("base", str(base or "none: all days since the first")),
        ("days", f"{len(days)}: {days[0]} to {days[-1]}"),
    ]


def _run_line(run: RunSeen) -> str:
    failed_with = f", {run.failure.failure_class}" if run.failure else ""
    return f"{run.text}{failed_with}, {run.url}"
