"""The gate, for commands that work without Dagster: they too refuse to run beside the coalescer."""

from datetime import date

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.gate import CoalescerStatus, require_open
from cdi_dagster.settings import Settings
from cdi_dagster.storage.interface import Storage


def coalescer_status(
    settings: Settings, corporate: Storage, published: Storage, collection: Collection, day: date
) -> CoalescerStatus:
    """Return what the source that the settings choose says of a day."""
    from cdi_dagster.ingestion.coalescer_sources import coalescer_source

    source = coalescer_source(
        settings.coalescer_source,
        corporate,
        published,
        lease_seconds=settings.coalescer_lease_seconds,
        quiet_seconds=settings.coalescer_quiet_seconds,
        batch_queues=settings.coalescer_batch_queues,
    )
    return source.status(collection, day)


def require_gate(
    settings: Settings, corporate: Storage, published: Storage, collection: Collection, day: date, *, override: bool
) -> None:
    """Return where the gate is open, or overridden: then nobody is asked.

    Raises:
        CdiError: the coalescer is not done; the next step names `--override-gate`.
    """
    if override:
        return
    try:
        require_open(coalescer_status(settings, corporate, published, collection, day))
    except CdiError as error:
        raise CdiError(
            error.failure_class,
            error.cause,
            next_step=f"{error.next_step} If you know that the coalescer is done: --override-gate.",
            detail=error.detail,
        ) from error
