"""The coalescer's status from the marker of our own coalescer.

One of the sources that the gate can use (`core.gate.CoalescerStatusSource`); no Dagster. `marker_status` decides,
pure; `MarkerCoalescerStatus` reads its input. Only reads.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from itertools import islice

from cdi_dagster.clock import utc_now
from cdi_dagster.coalescer.corporate_root import why_not_corporate_storage
from cdi_dagster.coalescer.marker import InvalidMarkerError, Marker, MarkerState, read_marker
from cdi_dagster.coalescer.shard import Shard, by_shard
from cdi_dagster.core.amounts import duration_text
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.diagnosis import day_volume
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.listing import StoredObject, listing_fingerprint
from cdi_dagster.core.object_names import InvalidObjectNameError, parse_object_name
from cdi_dagster.core.storage_keys import coalescer_marker_key
from cdi_dagster.storage.interface import Storage, StorageError

MOST_COUNTED = 1000
"""Objects counted where the coalescer has not started: one page of S3's listing."""

# No override here: it would publish the day without the missing objects.
_RESTORE = (
    "Restore the objects from a version or a backup, then run the coalescer for the day again: it renews its marker. "
    "Find what else writes or deletes there besides the coalescer."
)
_LOSS = "Something else writes there; ingesting the remaining objects would lose records"
_RENEW = (
    "If a person moved something out of the day's folder, or brought an object back, run the coalescer for the day "
    "again: it renews its marker. Otherwise find what else writes there first."
)


class MarkerCoalescerStatus:
    """The coalescer's status of one collection and day, from the marker and a listing.

    Args:
        corporate: the corporate root.
        lease_seconds: a RUNNING marker whose heartbeat is older belongs to a killed coalescer. At least the
            coalescer's own lease.
        clock: the time now, aware.
    """

    def __init__(self, corporate: Storage, *, lease_seconds: float, clock: Callable[[], datetime] = utc_now) -> None:
        self._corporate = corporate
        self._lease_seconds = lease_seconds
        self._clock = clock

    def status(self, day: CollectionDay) -> CoalescerStatus:
        """Return the state with its reason; unreadable state is UNKNOWN, never an exception."""
        key = coalescer_marker_key(day)
        try:
            found = read_marker(self._corporate, key)
            marker = found[0] if found else None
            # List after reading the marker: a coalescer that starts in between then shows as a difference.
            running = marker is not None and marker.state is MarkerState.RUNNING
            objects = self._corporate.list(day.corporate_prefix)
            # Without a marker only the reason needs them, and a day that is not coalesced may hold very many.
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
                next_step="Correct the root (--corporate-root, CDI_CORPORATE_ROOT), or mount the missing file system.",
            )
        return marker_status(marker, listing, day.storage_day, now=self._clock(), lease_seconds=self._lease_seconds)


def marker_status(
    marker: Marker | None, listing: Sequence[StoredObject], storage_day: date, *, now: datetime, lease_seconds: float
) -> CoalescerStatus:
    """Return the status that a marker and a listing mean.

    Args:
        marker: the coalescer's marker, or None where there is none.
        listing: everything under the day's prefix; ignored while the coalescer runs.
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
    claims = marker.claims()
    alive = [each for each in claims if _is_alive(each[1], now, lease_seconds)]
    if alive:
        return _running(marker, alive, storage_day, now)
    for shard, claim in claims:
        if claim.state is not MarkerState.COMPLETE:
            return _failed(shard, claim, storage_day, now)
    if len(claims) < marker.count:
        return CoalescerStatus(
            state=CoalescerState.NOT_STARTED,
            reason=f"coalescer for {storage_day} is not complete: {len(claims)} of {marker.count} shards are; "
            f"shard {_first_missing(marker)} has not started",
        )
    return _complete(marker, listing, storage_day)


def _is_alive(marker: Marker, now: datetime, lease_seconds: float) -> bool:
    return marker.state is MarkerState.RUNNING and (now - marker.heartbeat_at).total_seconds() <= lease_seconds


def _named(shard: Shard, marker: Marker) -> str:
    return marker.writer if shard.is_whole else f"shard {shard}, {marker.writer}"


def _first_missing(marker: Marker) -> Shard:
    return Shard(index=marker.shards.index(None), count=marker.count)


def _failed(shard: Shard, marker: Marker, storage_day: date, now: datetime) -> CoalescerStatus:
    if marker.state is MarkerState.RUNNING:
        reason = (
            f"coalescer for {storage_day} has written no heartbeat for {duration_text(now - marker.heartbeat_at)}, "
            f"since {marker.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC ({_named(shard, marker)}): it was killed or lost its "
            "connection. Run it again: it continues where it stopped"
        )
    else:
        at = f"{marker.completed_at or marker.heartbeat_at:%Y-%m-%d %H:%M} UTC"
        why = marker.reason or "no reason"
        reason = f"coalescer for {storage_day} failed at {at} ({_named(shard, marker)}): {why}"
    return CoalescerStatus(state=CoalescerState.FAILED, reason=reason)


def _running(day: Marker, alive: Sequence[tuple[Shard, Marker]], storage_day: date, now: datetime) -> CoalescerStatus:
    """Return that it runs, with how much is done and how long the slowest shard still takes at its rate."""
    shard, oldest = min(alive, key=lambda each: each[1].started_at)
    done = sum(claim.state is MarkerState.COMPLETE for _, claim in day.claims())
    of_shards = f", {done} of {day.count} shards done" if day.shards else ""
    failed = [str(shard) for shard, claim in day.claims() if claim.state is MarkerState.FAILED]
    also_failed = f"; shard {failed[0]} has failed" if failed and day.shards else ""
    so_far = duration_text(now - oldest.started_at)
    outlook = _outlook(done, day.count, [marker for _, marker in alive], now)
    return CoalescerStatus(
        state=CoalescerState.RUNNING,
        reason=f"coalescer for {storage_day} still running ({_named(shard, oldest)}, {so_far} so far{of_shards}"
        f"{outlook}){also_failed}",
    )


def _outlook(done: int, count: int, running: Sequence[Marker], now: datetime) -> str:
    """Return the share that is done and the time left, as far as the markers have them."""
    begun = [(marker, marker.share_done) for marker in running if marker.share_done]
    if not begun:
        return ""
    left = max((each.heartbeat_at - each.started_at) / share - (now - each.started_at) for each, share in begun)
    all_done = (done + sum(share for _, share in begun)) / count
    return f", {all_done:.0%}, about {duration_text(left)} left"


def _complete(marker: Marker, listing: Sequence[StoredObject], storage_day: date) -> CoalescerStatus:
    completed_at = marker.completed_at or marker.heartbeat_at
    at = f"{completed_at:%Y-%m-%d %H:%M:%S} UTC"
    # Each shard knows what it left, and when; what came later to one may be older than the end of another.
    claims = [claim for _, claim in marker.claims()]
    shares = list(zip(claims, by_shard(listing, marker.count), strict=True))
    if all(_was_left(claim, share) for claim, share in shares):
        return CoalescerStatus(
            state=CoalescerState.COMPLETE,
            reason=f"coalescer for {storage_day} completed at {at}: {marker.objects} objects, {marker.bytes} bytes",
            fingerprint=marker.fingerprint or listing_fingerprint(listing),
            completed_at=completed_at,
        )
    newer = [
        [stored for stored in share if stored.modified_at > (claim.completed_at or claim.heartbeat_at)]
        for claim, share in shares
    ]
    # K2HB writes raw objects only, and the coalescer had finished.
    arrived = _by_age(stored for of_shard in newer for stored in of_shard if not _is_coalesced(stored))
    changed = _by_age(
        stored
        for (claim, share), of_shard in zip(shares, newer, strict=True)
        if not _was_left(claim, share, without=arrived)
        for stored in of_shard
        if _is_coalesced(stored)
    )
    if arrived and not changed:
        since = f"{len(arrived)} {'object has' if len(arrived) == 1 else 'objects have'} arrived since"
        return CoalescerStatus(
            state=CoalescerState.NOT_STARTED,
            reason=f"coalescer for {storage_day} completed at {at}, but {since} "
            f"({arrived[0].key.rsplit('/', 1)[-1]} first): run it again",
        )
    first = f" ({changed[0].key.rsplit('/', 1)[-1]} was written after that)" if changed else ""
    offsets = day_volume(listing).offsets
    keeps_offsets = offsets >= (marker.offsets or math.inf) and all(
        not of_shard or _was_left(claim, share, without=of_shard)
        for (claim, share), of_shard in zip(shares, newer, strict=True)
    )
    return CoalescerStatus(
        state=CoalescerState.UNKNOWN,
        reason=f"coalescer for {storage_day} completed at {at}, but its objects have gone or changed since{first}: "
        f"{_volume(marker.objects, marker.offsets)} then, {_volume(len(listing), offsets)} now. "
        + ("No offsets are missing" if keeps_offsets else _LOSS),
        next_step=_RENEW if keeps_offsets else _RESTORE,
    )


def _by_age(objects: Iterable[StoredObject]) -> list[StoredObject]:
    return sorted(objects, key=lambda stored: stored.modified_at)


def _was_left(marker: Marker, listing: Sequence[StoredObject], *, without: Sequence[StoredObject] = ()) -> bool:
    """Whether the rest is as the coalescer left it, even if the clocks of storage and coalescer differ."""
    keys = {stored.key for stored in without}
    return listing_fingerprint(stored for stored in listing if stored.key not in keys) == marker.fingerprint


def _is_coalesced(stored: StoredObject) -> bool:
    try:
        return parse_object_name(stored.key).coalesced
    except InvalidObjectNameError:
        return False


def _volume(objects: int | None, offsets: int | None) -> str:
    return f"{objects} objects" + (f" with {offsets:,} offsets" if offsets is not None else "")
