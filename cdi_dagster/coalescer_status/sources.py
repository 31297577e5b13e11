"""Makes the coalescer status source of the gate: our own coalescer's marker, AWS Batch, or a quiet listing.

The only module that does, for the Dagster resource and for `cdi`. No dagster.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from cdi_dagster.aws.clients import client
from cdi_dagster.clock import utc_now
from cdi_dagster.coalescer_status.batch_jobs import QUEUES
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.days import day_ends_at
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus, CoalescerStatusSource
from cdi_dagster.storage.roots import Roots

CoalescerSourceName = Literal["marker", "batch", "quiet"]
_A_RUN_COALESCES = (CoalescerState.NOT_STARTED, CoalescerState.FAILED)


def coalescer_source(
    name: CoalescerSourceName,
    roots: Roots,
    *,
    lease_seconds: float,
    quiet_seconds: float,
    batch_queues: Sequence[str] = QUEUES,
    batch_cache_seconds: float = 0,
    runs_coalesce: bool = False,
    clock: Callable[[], datetime] = utc_now,
) -> CoalescerStatusSource:
    """Return the source of that name; it sends no request before its first use.

    Args:
        name: `marker`, `batch` or `quiet`.
        roots: where the coalescer works, and where what was seen of a day is kept (`quiet`, `batch`).
        lease_seconds: a RUNNING marker with an older heartbeat counts as killed (`marker`).
        quiet_seconds: how long a listing must not change (`quiet`).
        batch_queues: job queues to read (`batch`).
        batch_cache_seconds: how long their jobs are cached; 0 queries Batch every time.
        runs_coalesce: whether runs of Dagster coalesce their days.
        clock: the time now, aware.
    """
    source = _source(name, roots, lease_seconds, quiet_seconds, batch_queues, batch_cache_seconds, clock)
    return _OnlyDaysThatAreOver(source, runs_coalesce, clock)


class _OnlyDaysThatAreOver:
    """Keeps the gate of a day closed while K2HB still writes to it, whatever has been coalesced so far.

    Afterwards a run may coalesce the day, where runs do that.
    """

    def __init__(self, source: CoalescerStatusSource, runs_coalesce: bool, clock: Callable[[], datetime]) -> None:
        self._source = source
        self._runs_coalesce = runs_coalesce
        self._clock = clock

    def status(self, day: CollectionDay) -> CoalescerStatus:
        if self._clock() < day_ends_at(day.storage_day):
            return CoalescerStatus(
                state=CoalescerState.NOT_STARTED,
                reason=f"storage day {day.storage_day} is not over: K2HB writes to it until "
                f"{day_ends_at(day.storage_day):%Y-%m-%d %H:%M} UTC",
                next_step="Wait until the day is over and coalesced, or choose an earlier one.",
            )
        status = self._source.status(day)
        if self._runs_coalesce and status.state in _A_RUN_COALESCES:
            return replace(status, run_coalesces=True)
        return status


def _source(
    name: CoalescerSourceName,
    roots: Roots,
    lease_seconds: float,
    quiet_seconds: float,
    batch_queues: Sequence[str],
    batch_cache_seconds: float,
    clock: Callable[[], datetime],
) -> CoalescerStatusSource:
    match name:
        case "batch":
            from cdi_dagster.coalescer_status.batch_status import BatchCoalescerStatus

            return BatchCoalescerStatus(
                _batch_client, roots, queues=batch_queues, cache_seconds=batch_cache_seconds, clock=clock
            )
        case "quiet":
            from cdi_dagster.coalescer_status.quiet_listing import QuietListingCoalescerStatus

            return QuietListingCoalescerStatus(roots, quiet_seconds=quiet_seconds, clock=clock)
        case "marker":
            from cdi_dagster.coalescer_status.marker_status import MarkerCoalescerStatus

            return MarkerCoalescerStatus(roots.corporate, lease_seconds=lease_seconds, clock=clock)


def _batch_client() -> Any:
    return client("batch")
