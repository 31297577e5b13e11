"""The coalescer's status as our own coalescer's marker tells it.

One of the sources that can stand behind the gate (`core.gate.CoalescerStatusSource`); plain functions
without Dagster. The verdict is `verdict`, pure; `MarkerCoalescerStatus` reads what it needs. Only reads.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from itertools import islice

from cdi_dagster.clock import utc_now
from cdi_dagster.coalescer.corporate_root import why_not_corporate_storage
from cdi_dagster.coalescer.marker import InvalidMarkerError, Marker, MarkerState, read_marker
from cdi_dagster.core.amounts import duration_text
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.diagnosis import day_volume
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.listing import StoredObject, listing_fingerprint
from cdi_dagster.core.object_names import InvalidObjectNameError, parse_object_name
from cdi_dagster.core.storage_keys import coalescer_marker_key
from cdi_dagster.storage.interface import Storage, StorageError

MOST_COUNTED = 1000
"""Of the objects that wait for a coalescer: one page of S3's listing."""

# No override here: it would publish the day without what is gone.
_BRING_BACK = (
    "Bring the objects back, from a version or a backup, then have the coalescer run again for the day: its marker "
    "then holds for them. Find what writes or deletes there besides the coalescer."
)


class MarkerCoalescerStatus:
    """Says from the marker and a listing what the coalescer is doing about one collection and day.

    Args:
        corporate: the corporate root.
        lease_seconds: a RUNNING marker whose heartbeat is older is that of a killed coalescer. At least as long as the
            coalescer's own lease.
        clock: the time now, aware.
    """

    def __init__(self, corporate: Storage, *, lease_seconds: float, clock: Callable[[], datetime] = utc_now) -> None:
        self._corporate = corporate
        self._lease_seconds = lease_seconds
        self._clock = clock

    def status(self, day: CollectionDay) -> CoalescerStatus:
        """Return the state with its reason; what cannot be read is UNKNOWN, never an exception."""
        key = coalescer_marker_key(day)
        try:
            found = read_marker(self._corporate, key)
            marker = found[0] if found else None
            # The listing after the marker: a coalescer that begins in between then shows as a difference.
            running = marker is not None and marker.state is MarkerState.RUNNING
            objects = self._corporate.list(day.corporate_prefix)
            # Without a marker only the reason needs them, and a day that is not coalesced may be endless.
            listing = () if running else tuple(islice(objects, None if marker else MOST_COUNTED + 1))
            why_not = None if marker or listing else why_not_corporate_storage(self._corporate)
        except (InvalidMarkerError, StorageError) as error:
            return CoalescerStatus(
                state=CoalescerState.UNKNOWN,
                reason=f"coalescer for {day.storage_day}: its state cannot be read: {error}",
            )
        if why_not:
            return CoalescerStatus(
                state=CoalescerState.UNKNOWN,
                reason=why_not,
                next_step="Correct the root (--corporate-root, CDI_CORPORATE_ROOT), or mount what should be there.",
            )
        return verdict(marker, listing, day.storage_day, now=self._clock(), lease_seconds=self._lease_seconds)


def verdict(
    marker: Marker | None, listing: Sequence[StoredObject], storage_day: date, *, now: datetime, lease_seconds: float
) -> CoalescerStatus:
    """Judge a marker.

    Args:
        marker: what the coalescer says, or None where it says nothing.
        listing: everything under the day's prefix; not looked at while the coalescer runs.
        storage_day: the day, for the reason.
        now: the time, aware.
        lease_seconds: how old the heartbeat of a live coalescer may be.
    """
    if marker is None:
        count = f"more than {MOST_COUNTED}" if len(listing) > MOST_COUNTED else str(len(listing))
        there = f"{count} objects wait for it" if listing else "there are no objects for it either"
        return CoalescerStatus(
            state=CoalescerState.NOT_STARTED, reason=f"coalescer for {storage_day} has not started; {there}"
        )
    if marker.state is MarkerState.RUNNING:
        return _running(marker, storage_day, now, lease_seconds)
    if marker.state is MarkerState.FAILED:
        at = f"{marker.completed_at or marker.heartbeat_at:%Y-%m-%d %H:%M} UTC"
        return CoalescerStatus(
            state=CoalescerState.FAILED,
            reason=f"coalescer for {storage_day} failed at {at} ({marker.writer}): {marker.reason or 'no reason'}",
        )
    return _complete(marker, listing, storage_day)


def _running(marker: Marker, storage_day: date, now: datetime, lease_seconds: float) -> CoalescerStatus:
    silent_seconds = (now - marker.heartbeat_at).total_seconds()
    if silent_seconds > lease_seconds:
        return CoalescerStatus(
            state=CoalescerState.FAILED,
            reason=f"coalescer for {storage_day} has given no sign of life for {duration_text(silent_seconds)}, since "
            f"{marker.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC ({marker.writer}): it was killed or is cut off. "
            "Run it again, it goes on where it stopped",
        )
    so_far = duration_text(now - marker.started_at)
    return CoalescerStatus(
        state=CoalescerState.RUNNING,
        reason=f"coalescer for {storage_day} still running ({marker.writer}, {so_far} so far)",
    )


def _complete(marker: Marker, listing: Sequence[StoredObject], storage_day: date) -> CoalescerStatus:
    completed_at = marker.completed_at or marker.heartbeat_at
    at = f"{completed_at:%Y-%m-%d %H:%M:%S} UTC"
    if marker.fingerprint is not None and listing_fingerprint(listing) == marker.fingerprint:
        return CoalescerStatus(
            state=CoalescerState.COMPLETE,
            reason=f"coalescer for {storage_day} completed at {at}: {marker.objects} objects, {marker.bytes} bytes",
            fingerprint=marker.fingerprint,
            completed_at=completed_at,
        )
    newer = sorted(
        (stored for stored in listing if stored.modified_at > completed_at), key=lambda stored: stored.modified_at
    )
    # K2HB writes raw objects only, and the coalescer was done.
    arrived = [stored for stored in newer if not _is_coalesced(stored)]
    changed = [] if _was_left(marker, listing, without=arrived) else [each for each in newer if _is_coalesced(each)]
    if arrived and not changed:
        since = f"{len(arrived)} {'object has' if len(arrived) == 1 else 'objects have'} arrived since"
        return CoalescerStatus(
            state=CoalescerState.NOT_STARTED,
            reason=f"coalescer for {storage_day} completed at {at}, but {since} "
            f"({arrived[0].key.rsplit('/', 1)[-1]} first): run it again",
        )
    first = f" ({changed[0].key.rsplit('/', 1)[-1]} was written after that)" if changed else ""
    return CoalescerStatus(
        state=CoalescerState.UNKNOWN,
        reason=f"coalescer for {storage_day} completed at {at}, but its objects have gone or changed since{first}: "
        f"{_volume(marker.objects, marker.offsets)} then, {_volume(len(listing), day_volume(listing).offsets)} now. "
        "Something else writes there; ingesting what is left would lose records",
        next_step=_BRING_BACK,
    )


def _was_left(marker: Marker, listing: Sequence[StoredObject], *, without: Sequence[StoredObject]) -> bool:
    """Whether the coalescer left the rest so, however the clocks of storage and coalescer differ."""
    keys = {stored.key for stored in without}
    return listing_fingerprint(stored for stored in listing if stored.key not in keys) == marker.fingerprint


def _is_coalesced(stored: StoredObject) -> bool:
    try:
        return parse_object_name(stored.key).coalesced
    except InvalidObjectNameError:
        return False


def _volume(objects: int | None, offsets: int | None) -> str:
    return f"{objects} objects" + (f" with {offsets:,} offsets" if offsets is not None else "")
