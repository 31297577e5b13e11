"""Coalescer status from a quiet listing: lists, remembers the look; `core.quiet_listing` decides.

For places where neither AWS Batch nor a marker can be asked. The look is kept under the published root, because the
corporate root may be read-only for us.
"""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.places import control_prefix
from cdi_dagster.core.quiet_listing import ListingLook, quiet_listing_status
from cdi_dagster.storage import ObjectMissingError, Storage, StorageError


class QuietListingCoalescerStatus:
    """Coalescer status from two looks at the listing.

    Args:
        corporate: storage that is listed.
        published: storage that keeps the look.
        quiet_seconds: how long a listing must not have changed. Longer than the coalescer's longest silence.
        clock: returns the present moment, aware.
    """

    def __init__(
        self,
        corporate: Storage,
        published: Storage,
        *,
        quiet_seconds: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._corporate = corporate
        self._published = published
        self._quiet_for = timedelta(seconds=quiet_seconds)
        self._clock = clock

    def status(self, collection: Collection, storage_day: date) -> CoalescerStatus:
        """Return the state of a storage day; trouble with the storage is UNKNOWN, with why."""
        key = f"{control_prefix(collection, storage_day)}quiet_listing.json"
        try:
            listing = list(self._corporate.list(collection.corporate_prefix(storage_day)))
            remembered = self._remembered(key)
            status, look = quiet_listing_status(
                storage_day, listing, remembered, now=self._clock(), quiet_for=self._quiet_for
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
