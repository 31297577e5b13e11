"""The gate, for commands that work without Dagster: they too refuse to run beside the coalescer."""

from rich.markup import escape

from cdi_dagster.cli.console import progress_console
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus, require_open
from cdi_dagster.settings import Settings
from cdi_dagster.storage.roots import Roots


def coalescer_status(settings: Settings, roots: Roots, day: CollectionDay) -> CoalescerStatus:
    """Return a day's status from the source that the settings choose."""
    from cdi_dagster.coalescer_status.sources import coalescer_source

    source = coalescer_source(
        settings.coalescer_source,
        roots,
        lease_seconds=settings.coalescer_lease_seconds,
        quiet_seconds=settings.coalescer_quiet_seconds,
        batch_queues=settings.coalescer_batch_queues,
        runs_coalesce=settings.coalescer_in_dagster,
    )
    return source.status(day)


def require_gate(settings: Settings, roots: Roots, day: CollectionDay, *, override: bool) -> CoalescerStatus:
    """Return the coalescer's status where the gate is open, or overridden: then print what is overridden.

    Raises:
        CdiError: the coalescer is not done; the next step names `--override-gate`, unless the status has its own.
    """
    if override:
        status = _status_in_any_case(settings, roots, day)
        if not status.is_open:
            text = f"--override-gate: continuing although the coalescer is {status.state}: {status.reason}"
            progress_console().print(escape(text), style="yellow")
        return status
    status = coalescer_status(settings, roots, day)
    try:
        require_open(status)
    except CdiError as error:
        if status.next_step:
            raise
        raise CdiError(
            error.failure_class,
            error.cause,
            next_step=f"{error.next_step} If you know that the coalescer is done: --override-gate.",
            detail=error.detail,
        ) from error
    return status


def _status_in_any_case(settings: Settings, roots: Roots, day: CollectionDay) -> CoalescerStatus:
    """Return the status, UNKNOWN where it cannot even be read: an override is for just such a day."""
    try:
        return coalescer_status(settings, roots, day)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not stop an override
        reason = f"It could not be read: {type(error).__name__}: {error}"
        return CoalescerStatus(state=CoalescerState.UNKNOWN, reason=reason)
