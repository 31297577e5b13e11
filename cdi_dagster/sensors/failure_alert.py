"""The alert of failed runs: of one day, or of all days that failed for one cause."""

from collections.abc import Sequence
from datetime import date

from cdi_dagster.core.alert import Alert, AlertLevel
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of, storage_days_text
from cdi_dagster.core.failure_messages import FailedDay, collection_of
from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass
from cdi_dagster.resources.ingest_options import IngestOptions

_MOST_LINES = 40


def failure_alert(
    failed: Sequence[FailedDay], options: IngestOptions, *, cause: str, is_reminder: bool = False
) -> Alert:
    """Return the alert of runs that failed for one cause, by storage day; its link is to the first of them.

    Args:
        failed: at least one.
        options: for the links.
        cause: of the message.
        is_reminder: whether an alert of them was sent before.
    """
    first = failed[0]
    failure = first.failure
    days = list(dict.fromkeys(each.storage_day for each in failed))
    named = _named(first.collection_id, days, is_snapshot=first.is_snapshot)
    if not first.is_snapshot:
        named += f" (export day {export_day_of(days[0])})" if len(days) == 1 else ","
    return Alert(
        kind="FAILED",
        title=f"{'Still: ' if is_reminder else ''}{failure.failure_class}: {named} failed",
        text=_text(failed),
        collection_id=first.collection_id,
        storage_days=tuple(days),
        runbook=options.runbook_link(failure.failure_class),
        failure_class=str(failure.failure_class),
        owner=FAILURE_GUIDE[failure.failure_class].owner,
        next_step=failure.next_step,
        key=f"failed|{cause}",
        level=AlertLevel.WARNING if all(each.will_retry for each in failed) else AlertLevel.ERROR,
        run_url=f"{options.dagster_url}/runs/{first.run_id}",
        last_log_lines=failure.detail.get("last_log_lines"),
    )


def recovery_alert(collection: Collection, days: Sequence[date], cause: str, options: IngestOptions) -> Alert:
    """Return the alert that a cause is over: each of its days has succeeded since, or has its lost offsets back."""
    _, is_snapshot = collection_of(cause)
    shown = [export_day_of(day) for day in days] if is_snapshot else days
    failure_class = FailureClass(cause.split("|")[1])
    or_back = ", or its offsets are back as published" if failure_class is FailureClass.OFFSETS_LOST else ""
    return Alert(
        kind="FAILED_OVER",
        key=f"failed|{cause}",
        level=AlertLevel.INFORMATION,
        title=f"No longer failed: {failure_class}: {_named(collection.id, days, is_snapshot=is_snapshot)}",
        text=f"A later run of each {'snapshot' if is_snapshot else 'day'} has succeeded{or_back}: "
        f"{', '.join(map(str, shown))}.",
        collection_id=collection.id,
        storage_days=tuple(days),
        runbook=options.runbook_link(failure_class),
        failure_class=str(failure_class),
    )


def _named(collection_id: str, storage_days: Sequence[date], *, is_snapshot: bool) -> str:
    days = sorted(set(storage_days))
    if is_snapshot:
        return f"the snapshot of {collection_id} for {', '.join(str(export_day_of(day)) for day in days)}"
    return f"{collection_id} of {storage_days_text(days)}"


def _text(failed: Sequence[FailedDay]) -> str:
    automatically = f"Automatically: {failed[0].what_happens.rstrip('.')}."
    if len(failed) == 1:
        return f"{failed[0].failure.cause.rstrip('.')}. {automatically}"
    lines = [f"{_partition(each)}: {each.failure.cause}" for each in failed[:_MOST_LINES]]
    more = [f"… and {len(failed) - _MOST_LINES} more"] if len(failed) > _MOST_LINES else []
    return "\n".join([*lines, *more, automatically])


def _partition(failed: FailedDay) -> date:
    return export_day_of(failed.storage_day) if failed.is_snapshot else failed.storage_day
