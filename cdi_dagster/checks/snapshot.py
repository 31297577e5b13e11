"""The checks of a snapshot: its content is of its own day, and no id_part lost ids. They read marks, not rows.

What of the rows they need (days of `_lastModifiedDateTime` in a sample, rows by id_part) the job counted as stored.
"""

from datetime import date

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.snapshot import snapshot_days
from cdi_dagster.core.snapshot_checks import FRESH_DAYS, fallen_id_parts, stale_content
from cdi_dagster.published.snapshot_mark import SnapshotMark
from cdi_dagster.published.snapshots import MOST_WEEKS, read_snapshot_mark, snapshot_of
from cdi_dagster.storage.interface import Storage
from cdi_dagster.storage.roots import Roots


def snapshot_checks(collection: Collection, *, most_fall_percent: float) -> list[dg.AssetChecksDefinition]:
    """Return the checks of a keyed collection's snapshot.

    Args:
        collection: whose snapshot.
        most_fall_percent: by how much the rows of an id_part may fall from one snapshot to the next.
    """
    asset = names.snapshot_key(collection)

    @dg.asset_check(
        asset=asset,
        name="snapshot_is_fresh",
        description=f"In a sample of ids, something was last modified on each of the last {FRESH_DAYS} storage days, "
        "and the newest is the snapshot's own. A day of which all rows were lost on the way shows here.",
    )
    def snapshot_is_fresh(
        context: dg.AssetCheckExecutionContext, roots: dg.ResourceParam[Roots]
    ) -> dg.AssetCheckResult:
        mark = _mark(context, roots.published, collection)
        problems = stale_content(mark.modified, mark.export_day)
        return _result(mark, problems, {"sampled_rows": mark.sampled_rows})

    @dg.asset_check(
        asset=asset,
        name="id_parts_do_not_fall",
        description="No id_part has fewer rows than in the snapshot before, by more than "
        f"{most_fall_percent:g} % (CDI_SNAPSHOT_MOST_FALL_PERCENT): deleted ids stay, so none should be fewer.",
    )
    def id_parts_do_not_fall(
        context: dg.AssetCheckExecutionContext, roots: dg.ResourceParam[Roots]
    ) -> dg.AssetCheckResult:
        mark = _mark(context, roots.published, collection)
        before = _before(roots.published, collection, mark.export_day)
        problems = fallen_id_parts(before.id_parts, mark.id_parts, most_percent=most_fall_percent) if before else []
        compared = str(before.export_day) if before else "none before it"
        return _result(mark, problems, {"compared_with": compared})

    return [snapshot_is_fresh, id_parts_do_not_fall]


def _mark(context: dg.AssetCheckExecutionContext, published: Storage, collection: Collection) -> SnapshotMark:
    run = context.op_execution_context
    if not run.has_partition_key:
        raise dg.Failure("Select the Friday whose snapshot is to be checked.", allow_retries=False)
    day = snapshot_of(collection, parse_day(run.partition_key))
    mark = read_snapshot_mark(published, day)
    if mark is None:
        raise dg.Failure(f"There is no snapshot of {collection.id} for {day.export_day}.", allow_retries=False)
    return mark


def _before(published: Storage, collection: Collection, export_day: date) -> SnapshotMark | None:
    """Return the newest snapshot before, whose rows were counted."""
    for friday in reversed(snapshot_days(export_day, weeks=MOST_WEEKS)[:-1]):
        try:
            mark = read_snapshot_mark(published, snapshot_of(collection, friday))
        except CdiError:
            continue  # what the old system left and nobody adopted
        if mark and mark.id_parts:
            return mark
    return None


def _result(mark: SnapshotMark, problems: list[str], metadata: dict[str, str | int]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not problems,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"Snapshot {mark.export_day}: {'; '.join(problems)}." if problems else None,
        metadata={**metadata, "export_day": str(mark.export_day), "correlation_id": mark.correlation_id},
    )
