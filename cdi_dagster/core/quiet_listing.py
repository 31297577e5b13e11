"""The coalescer's state where nobody reports it: a listing that has not changed for long enough. The pure half.

It takes two looks: the first is remembered (`ListingLook`), a later one that finds the same listing proves how long
it has been quiet. Keeping the look is `cdi_dagster.ingestion.quiet_listing_status`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.listing import StoredObject, listing_fingerprint


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
                reason=f"the listing of {storage_day} has been seen quiet for {_minutes(quiet)} of the "
                f"{_minutes(quiet_for)} that make it complete ({len(listing)} objects, the youngest of "
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


def _minutes(duration: timedelta) -> str:
    return f"{max(0, int(duration.total_seconds() // 60))} min"
