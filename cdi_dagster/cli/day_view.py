"""One storage day for a person: its state, what it waits for, and what is published of it."""

from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from cdi_dagster.cli.console import NOT_YET, facts, figures_table, state_exit_code, state_text
from cdi_dagster.cli.day_overview import DayOverview, open_day_overviews
from cdi_dagster.cli.gate import coalescer_status
from cdi_dagster.core.amounts import size_text
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.diagnosis import Diagnosis
from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass, runbook_link
from cdi_dagster.core.gate import CoalescerStatus, class_of
from cdi_dagster.ingestion.day_progress import DayProgress, day_progress
from cdi_dagster.ingestion.day_volumes import DayVolumes
from cdi_dagster.settings import Settings
from cdi_dagster.storage import Storage, open_roots
from cdi_dagster.table_definitions import with_tables


@dataclass(frozen=True, kw_only=True)
class DayView:
    """One day."""

    settings: Settings
    corporate: Storage
    overview: DayOverview
    coalescer: CoalescerStatus
    diagnosis: Diagnosis
    progress: DayProgress
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 published, 1 failed, 3 not yet."""
        return state_exit_code(self.overview.state)

    @property
    def is_settled(self) -> bool:
        """Whether it is published, or failed."""
        return self.exit_code != NOT_YET

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
            ("state", state_text(overview.state, overview.reason)),
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
        rows = [("last run", run.text)]
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


def day_view(settings: Settings, collection: Collection, storage_day: date, usual_days: int) -> DayView:
    """Return the view of one day.

    Args:
        settings: of the installation.
        collection: with the tables of the settings or without.
        storage_day: which.
        usual_days: how many earlier days the usual is the median of.

    Raises:
        StorageError: the storage does not respond.
    """
    roots = open_roots(settings.corporate_root, settings.published_root)
    day = with_tables(collection, settings.table_definitions).on(storage_day)
    status = coalescer_status(settings, roots, day)
    diagnosis = DayVolumes(history_days=usual_days).diagnosis(roots, day)
    progress = day_progress(roots, day, fingerprint=status.fingerprint)
    with open_day_overviews(settings, roots) as overviews:
        (overview,) = overviews.of(day.collection, [storage_day])
    return DayView(
        settings=settings,
        corporate=roots.corporate,
        overview=overview,
        coalescer=status,
        diagnosis=diagnosis,
        progress=progress,
        notes=overviews.notes,
    )


def _current(done: bool, is_current: bool, records: int | None = None) -> str:
    if not done:
        return "no"
    count = "yes" if records is None else f"{records:,}"
    return (
        f"{count}, from the objects that are there now"
        if is_current
        else f"{count}, but the objects have changed since"
    )


def _rejects(overview: DayOverview) -> str:
    if overview.rejects is None:
        return "not known: no run has read the day"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in overview.rejected_by_reason.items() if count)
    return f"{overview.rejects:,}: {reasons} (cdi rejects show)" if overview.rejects else "none"


def _tables(progress: DayProgress, overview: DayOverview) -> str:
    if not progress.has_tables:
        return "none are defined: the records alone are the day"
    if not progress.missing_tables:
        return "yes, of these records: " + ", ".join(f"{table.name} ({table.rows:,} rows)" for table in overview.tables)
    if not progress.published:
        return "no"
    missing = ", ".join(progress.missing_tables)
    next_step = FAILURE_GUIDE[FailureClass.TABLES_MISSING].next_step
    return f"no, {FailureClass.TABLES_MISSING}: {missing}. {next_step}"
