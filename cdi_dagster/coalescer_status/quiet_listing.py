"""The coalescer's state where nothing reports it: a listing that has not changed for long enough is complete.

It takes two reads. The first is kept (`SeenListing`) below the published root, because the corporate root may be
read-only for us; a later read of the same listing proves how long it has been quiet. `quiet_listing_status` decides,
pure; `QuietListingCoalescerStatus` reads.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from cdi_dagster.clock import utc_now
from cdi_dagster.core.amounts import duration_text
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.listing import StoredObject, listing_fingerprint
from cdi_dagster.core.storage_keys import quiet_listing_key
from cdi_dagster.storage import ObjectMissingError, StorageError
from cdi_dagster.storage.roots import Roots


@dataclass(frozen=True, kw_only=True)
class SeenListing:
    """When a listing that has not changed since was first seen.

    Attributes:
        fingerprint: of the listing.
        first_seen_at: when it was first seen (aware, UTC).
    """

    fingerprint: str
    first_seen_at: datetime


def quiet_listing_status(
    storage_day: date,
    listing: Sequence[StoredObject],
    earlier: SeenListing | None,
    *,
    now: datetime,
    quiet_for: timedelta,
) -> tuple[CoalescerStatus, SeenListing]:
    """Decide from the listing and the earlier observation; also return the observation to keep from now on."""
    fingerprint = listing_fingerprint(listing)
    # An observation from the future means that the clock was set back: it proves nothing.
    same = earlier is not None and earlier.fingerprint == fingerprint and earlier.first_seen_at <= now
    seen = earlier if same and earlier else SeenListing(fingerprint=fingerprint, first_seen_at=now)
    if not listing:
        return CoalescerStatus(state=CoalescerState.NOT_STARTED, reason=f"no objects for {storage_day}"), seen

    youngest = max(stored.modified_at for stored in listing)
    quiet_since = max(seen.first_seen_at, youngest)
    quiet = now - quiet_since
    if quiet < quiet_for:
        return (
            CoalescerStatus(
                state=CoalescerState.RUNNING,
                reason=f"the listing of {storage_day} has been quiet for {duration_text(quiet)} of the "
                f"{duration_text(quiet_for)} that make it complete ({len(listing)} objects, the youngest from "
                f"{youngest:%Y-%m-%d %H:%M} UTC)",
            ),
            seen,
        )
    return (
        CoalescerStatus(
            state=CoalescerState.COMPLETE,
            reason=f"the listing of {storage_day} has been quiet since {quiet_since:%Y-%m-%d %H:%M} UTC",
            fingerprint=fingerprint,
            completed_at=quiet_since,
        ),
        seen,
    )


class QuietListingCoalescerStatus:
    """Coalescer status from two reads of the listing.

    Args:
        roots: corporate storage is listed; the published root keeps the observation.
        quiet_seconds: how long a listing must not have changed. Longer than the coalescer's longest pause.
        clock: returns the time now, aware.
    """

    def __init__(
        self,
        roots: Roots,
        *,
        quiet_seconds: float,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._corporate = roots.corporate
        self._published = roots.published
        self._quiet_for = timedelta(seconds=quiet_seconds)
        self._clock = clock

    def status(self, day: CollectionDay) -> CoalescerStatus:
        """Return the state of a storage day; a storage error is UNKNOWN, with the reason."""
        key = quiet_listing_key(day)
        try:
            listing = list(self._corporate.list(day.corporate_prefix))
            earlier = self._earlier(key)
            status, seen = quiet_listing_status(
                day.storage_day, listing, earlier, now=self._clock(), quiet_for=self._quiet_for
            )
            if seen != earlier:
                self._published.write(key, _to_bytes(seen))
        except StorageError as error:
            return CoalescerStatus(state=CoalescerState.UNKNOWN, reason=f"could not read the listing: {error}")
        return status

    def _earlier(self, key: str) -> SeenListing | None:
        try:
            value = json.loads(self._published.read(key))
            return SeenListing(
                fingerprint=value["fingerprint"], first_seen_at=datetime.fromisoformat(value["first_seen_at"])
            )
        except (ObjectMissingError, ValueError, KeyError, TypeError):
            # Nothing kept, or nothing readable: start again, which only waits longer.
            return None


def _to_bytes(seen: SeenListing) -> bytes:
    value = {"fingerprint": seen.fingerprint, "first_seen_at": seen.first_seen_at.isoformat()}
    return json.dumps(value).encode()
