"""The coalescer's state where nobody reports it: a listing that has not changed for long enough is complete.

It takes two reads: the first is remembered (`ListingLook`) below the published root, for the corporate root may be
read-only for us; a later one that finds the same listing proves how long it has been quiet. `quiet_listing_status`
decides, pure; `QuietListingCoalescerStatus` reads.
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
class ListingLook:
    """The first look at a listing that has not changed since.

    Attributes:
        fingerprint: of the listing.
        first_seen_at: when it was first seen so (aware, UTC).
    """

    fingerprint: str
    first_seen_at: datetime


def quiet_listing_status(
    storage_day: date,
    listing: Sequence[StoredObject],
    remembered: ListingLook | None,
    *,
    now: datetime,
    quiet_for: timedelta,
) -> tuple[CoalescerStatus, ListingLook]:
    """Decide from this look and the remembered one; also return the look to remember from now on."""
    fingerprint = listing_fingerprint(listing)
    # A remembered look from the future is a clock that was set back: it proves nothing.
    same = remembered is not None and remembered.fingerprint == fingerprint and remembered.first_seen_at <= now
    look = remembered if same and remembered else ListingLook(fingerprint=fingerprint, first_seen_at=now)
    if not listing:
        return CoalescerStatus(state=CoalescerState.NOT_STARTED, reason=f"no objects for {storage_day}"), look

    youngest = max(stored.modified_at for stored in listing)
    quiet_since = max(look.first_seen_at, youngest)
    quiet = now - quiet_since
    if quiet < quiet_for:
        return (
            CoalescerStatus(
                state=CoalescerState.RUNNING,
                reason=f"the listing of {storage_day} has been seen quiet for {duration_text(quiet)} of the "
                f"{duration_text(quiet_for)} that make it complete ({len(listing)} objects, the youngest of "
                f"{youngest:%Y-%m-%d %H:%M} UTC)",
            ),
            look,
        )
    return (
        CoalescerStatus(
            state=CoalescerState.COMPLETE,
            reason=f"the listing of {storage_day} has been quiet since {quiet_since:%Y-%m-%d %H:%M} UTC",
            fingerprint=fingerprint,
            completed_at=quiet_since,
        ),
        look,
    )


class QuietListingCoalescerStatus:
    """Coalescer status from two looks at the listing.

    Args:
        roots: corporate storage is listed; the published root keeps the look.
        quiet_seconds: how long a listing must not have changed. Longer than the coalescer's longest silence.
        clock: returns the present moment, aware.
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
        """Return the state of a storage day; trouble with the storage is UNKNOWN, with why."""
        key = quiet_listing_key(day)
        try:
            listing = list(self._corporate.list(day.corporate_prefix))
            remembered = self._remembered(key)
            status, look = quiet_listing_status(
                day.storage_day, listing, remembered, now=self._clock(), quiet_for=self._quiet_for
            )
            if look != remembered:
                self._published.write(key, _to_bytes(look))
        except StorageError as error:
            return CoalescerStatus(state=CoalescerState.UNKNOWN, reason=f"could not look at the listing: {error}")
        return status

    def _remembered(self, key: str) -> ListingLook | None:
        try:
            value = json.loads(self._published.read(key))
            return ListingLook(
                fingerprint=value["fingerprint"], first_seen_at=datetime.fromisoformat(value["first_seen_at"])
            )
        except (ObjectMissingError, ValueError, KeyError, TypeError):
            # Nothing remembered, or nothing that can be read: start looking again, which only waits longer.
            return None


def _to_bytes(look: ListingLook) -> bytes:
    value = {"fingerprint": look.fingerprint, "first_seen_at": look.first_seen_at.isoformat()}
    return json.dumps(value).encode()
