"""What is kept of a completion that AWS Batch reported, and how a day is judged whose jobs Batch has forgotten.

Pure. Batch lists ended jobs for about a week; afterwards a coalesced day looks like one that was never coalesced.
`batch_status` reads and writes the proof, below the published root.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain

from cdi_dagster.coalescer_status.batch_jobs import BATCH_REMEMBERS
from cdi_dagster.core.amounts import duration_text
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.listing import StoredObject, listing_fingerprint
from cdi_dagster.core.object_names import InvalidObjectNameError, parse_object_name


@dataclass(frozen=True, kw_only=True)
class CompletionProof:
    """That AWS Batch reported a collection's day as COMPLETE.

    Attributes:
        completed_at: when the last job ended (aware, UTC).
        fingerprint: of the day's listing when the completion was first seen.
    """

    completed_at: datetime
    fingerprint: str

    def to_bytes(self) -> bytes:
        """Return the JSON text that is kept."""
        return json.dumps(
            {
                "state": CoalescerState.COMPLETE,
                "completed_at": self.completed_at.isoformat(),
                "listing_fingerprint": self.fingerprint,
            }
        ).encode()

    @staticmethod
    def from_bytes(content: bytes) -> "CompletionProof | None":
        """Read what was kept; None where it is no proof: the day is then judged by its objects."""
        try:
            value = json.loads(content)
            completed_at = datetime.fromisoformat(value["completed_at"])
            if value["state"] != CoalescerState.COMPLETE or completed_at.tzinfo is None:
                return None
            return CompletionProof(completed_at=completed_at, fingerprint=str(value["listing_fingerprint"]))
        except (ValueError, KeyError, TypeError):
            return None


def forgotten_day_status(
    storage_day: date, proof: CompletionProof | None, listing: Iterable[StoredObject], *, now: datetime
) -> CoalescerStatus:
    """Return the state of a day of which AWS Batch lists no job any more, while no job of its group is live.

    Complete by the proof, where the listing is still the one of the proof; otherwise by the objects: all coalesced, and
    the youngest older than what Batch remembers (a job that wrote it would be listed).

    Args:
        storage_day: the day, for the reason.
        proof: what was kept, or None. Without one, the listing is read only up to the first raw object.
        listing: everything below the day's prefix.
        now: the time, aware.
    """
    forgotten = f"AWS Batch has forgotten the jobs of {storage_day}"
    if proof:
        listing = list(listing)
        if listing_fingerprint(listing) == proof.fingerprint:
            return CoalescerStatus(
                state=CoalescerState.COMPLETE,
                reason=f"{forgotten}; it was complete at {proof.completed_at:%Y-%m-%d %H:%M} UTC and has not changed",
                # No fingerprint, as while Batch knew the jobs: attempts launched for this completion still count.
                completed_at=proof.completed_at,
            )
        forgotten += f"; it was complete at {proof.completed_at:%Y-%m-%d %H:%M} UTC and has changed since"
    objects = iter(listing)
    first = next(objects, None)
    if first is None:
        return _not_started(f"{forgotten}; it has no objects")
    coalesced = []
    for stored in chain([first], objects):
        if not _is_coalesced(stored.key):
            return _not_started(f"{forgotten}; {stored.key.rsplit('/', 1)[-1]} is not coalesced")
        coalesced.append(stored)
    youngest = max(coalesced, key=lambda stored: stored.modified_at)
    age = now - youngest.modified_at
    if age <= BATCH_REMEMBERS:
        name = youngest.key.rsplit("/", 1)[-1]
        return _not_started(f"{forgotten}; {name} was written {duration_text(age)} ago, by no job that it lists")
    return CoalescerStatus(
        state=CoalescerState.COMPLETE,
        reason=f"{forgotten}; all its {len(coalesced)} objects are coalesced, the youngest from "
        f"{youngest.modified_at:%Y-%m-%d %H:%M} UTC, and no job of its group is live",
        fingerprint=listing_fingerprint(coalesced),
        completed_at=youngest.modified_at,
    )


def _is_coalesced(key: str) -> bool:
    try:
        return parse_object_name(key).coalesced
    except InvalidObjectNameError:
        return False


def _not_started(reason: str) -> CoalescerStatus:
    return CoalescerStatus(
        state=CoalescerState.NOT_STARTED,
        reason=reason,
        next_step="Run the coalescer's job for this day (its date as date-to-add).",
    )
