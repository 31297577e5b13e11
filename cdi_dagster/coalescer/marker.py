"""The coalescer's marker of one collection and storage day: its public state and its exclusive claim.

One small JSON object, replaced by compare and swap only, so that of two coalescers one works and the other gets an
error. `coalescer_status.marker_status` reads it.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from cdi_dagster.clock import utc_now
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import coalescer_marker_key
from cdi_dagster.storage.interface import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    Storage,
    StorageError,
)

DEFAULT_LEASE_SECONDS = 120.0
"""How long a RUNNING marker counts as alive without a heartbeat: six heartbeat intervals."""
_HEARTBEATS_PER_LEASE = 6
_CLAIM_ATTEMPTS = 5
_LOST = {"lost_claim": True}.items()
_PLAIN_FIELDS = ("objects", "bytes", "offsets", "fingerprint", "reason", "share_done")

_log = logging.getLogger(__name__)


class MarkerState(StrEnum):
    """The coalescer's state."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"


class InvalidMarkerError(ValueError):
    """The object is not a marker; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Marker:
    """The coalescer's published state.

    Attributes:
        state: RUNNING, COMPLETE or FAILED.
        started_at: when this run began (aware, UTC, as are all times here).
        heartbeat_at: its latest heartbeat.
        writer: `host:pid#run` of the process.
        completed_at: when it ended, COMPLETE or FAILED.
        objects: objects of the day when it ended.
        bytes: their compressed bytes.
        offsets: the offsets that their names state, summed.
        fingerprint: `core.listing.listing_fingerprint` of the day when it ended.
        reason: why it failed.
        share_done: how much of the work was done at the heartbeat, 0 to 1; None where that is not known.
    """

    state: MarkerState
    started_at: datetime
    heartbeat_at: datetime
    writer: str
    completed_at: datetime | None = None
    objects: int | None = None
    bytes: int | None = None
    offsets: int | None = None
    fingerprint: str | None = None
    reason: str | None = None
    share_done: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; `from_json` reads it back."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, value: Any) -> "Marker":
        """Read what `to_json` wrote; fields that this version does not know are ignored.

        Raises:
            InvalidMarkerError: it is not a marker.
        """
        try:
            return cls(
                state=MarkerState(value["state"]),
                started_at=_moment(value["started_at"]),
                heartbeat_at=_moment(value["heartbeat_at"]),
                completed_at=_moment(value["completed_at"]) if value.get("completed_at") else None,
                writer=str(value["writer"]),
                **{name: value.get(name) for name in _PLAIN_FIELDS},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidMarkerError(f"{type(error).__name__}: {error}") from error


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)


def read_marker(storage: Storage, key: str) -> tuple[Marker, str] | None:
    """Return the marker and its ETag, or None where there is none.

    Raises:
        InvalidMarkerError: the object is no marker.
        StorageError: it cannot be read.
    """
    for _ in range(_CLAIM_ATTEMPTS):
        stored = storage.head(key)
        if stored is None:
            return None
        try:
            with storage.open(key, etag=stored.etag) as stream:
                content = stream.read()
        except (ObjectChangedError, ObjectMissingError):
            continue  # its writer replaced it between the two calls
        try:
            return Marker.from_json(json.loads(content)), stored.etag
        except ValueError as error:
            raise InvalidMarkerError(f"{storage.uri(key)} is not a coalescer marker ({error})") from error
    raise StorageError(f"{storage.uri(key)} changed during each of {_CLAIM_ATTEMPTS} reads: try again.")


class Claim:
    """The exclusive right to coalesce one collection and day, kept alive by a thread; a context manager.

    Entering writes RUNNING (or raises); `complete` and `fail` write the end; an exception writes FAILED.

    Args:
        storage: the corporate root.
        day: what is coalesced.
        lease_seconds: how long a RUNNING marker counts as alive without a heartbeat. The same for every coalescer and
            for `MarkerCoalescerStatus`.
        clock: the time now, aware.

    Attributes:
        took_over: the killed coalescer whose claim was taken over, if any.
        share_done: how much of the work is done, 0 to 1, for the next heartbeat; whoever works sets it.
    """

    def __init__(
        self,
        storage: Storage,
        day: CollectionDay,
        *,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._storage = storage
        self._what = f"{day.collection.id} of {day.storage_day}"
        self._key = coalescer_marker_key(day)
        self._lease_seconds = lease_seconds
        self._clock = clock or utc_now
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="coalescer heartbeat", daemon=True)
        self._lost: str | None = None
        self._ended = False
        self.took_over: str | None = None
        self.share_done: float | None = None

    def __enter__(self) -> Self:
        now = self._clock()
        # The random part distinguishes two claims of one process.
        writer = f"{socket.gethostname()}:{os.getpid()}#{os.urandom(3).hex()}"
        self._marker = Marker(state=MarkerState.RUNNING, started_at=now, heartbeat_at=now, writer=writer)
        try:
            self._etag = self._acquire(_content(self._marker))
            self._beaten_at = time.monotonic()
            self._thread.start()
        except BaseException as error:
            self._stop.set()
            self._release(error)  # stopped between writing the marker and entering
            raise
        return self

    def _release(self, error: BaseException) -> None:
        """Write FAILED if the marker is ours and still RUNNING."""
        if self._ended or self._lost:
            return
        try:
            found = read_marker(self._storage, self._key)
            if found and found[0].writer != self._marker.writer:
                self._lost = f"{found[0].writer} has replaced its marker"
            elif found:
                self._etag = found[1]
                self.fail(f"{type(error).__name__}: {error}" if str(error) else f"stopped by {type(error).__name__}")
        except (StorageError, InvalidMarkerError, CdiError) as marker_error:
            # The first error matters more; without this marker the claim ends with its lease.
            _log.warning("The coalescer's FAILED marker could not be written: %s", marker_error)

    def _acquire(self, content: bytes) -> str:
        for _ in range(_CLAIM_ATTEMPTS):
            present = self._replaceable()
            try:
                if present is None:
                    return self._storage.write(self._key, content, if_absent=True).etag
                return self._storage.write(self._key, content, if_match=present).etag
            except (ObjectExistsError, ObjectChangedError, ObjectMissingError):
                continue  # another process was faster: read again
        raise StorageError(f"{self._storage.uri(self._key)} changed during each attempt to claim it: try again.")

    def _replaceable(self) -> str | None:
        """Return the ETag of a marker that may be replaced, or None where there is none."""
        try:
            found = read_marker(self._storage, self._key)
        except InvalidMarkerError as error:
            raise CdiError(
                FailureClass.COALESCER_UNKNOWN,
                f"It is unknown whether another coalescer is working on {self._what}: {error}.",
                next_step="Delete it if no coalescer is running, then run the coalescer again.",
            ) from error
        if found is None:
            return None
        marker, etag = found
        if marker.state is MarkerState.RUNNING and marker.writer != self._marker.writer:
            silent_seconds = (self._clock() - marker.heartbeat_at).total_seconds()
            if silent_seconds <= self._lease_seconds:
                raise CdiError(
                    FailureClass.COALESCER_RUNNING,
                    f"Another coalescer ({marker.writer}) has been working on {self._what} since "
                    f"{marker.started_at:%H:%M:%S} UTC; its last heartbeat is {silent_seconds:.0f} s old.",
                    next_step=f"Wait for it. If it was killed, its claim ends {self._lease_seconds:.0f} s after that.",
                )
            self.took_over = f"{marker.writer} (silent for {silent_seconds:.0f} s)"
        return etag

    def _beat(self) -> None:
        while not self._stop.wait(self._lease_seconds / _HEARTBEATS_PER_LEASE):
            try:
                with self._lock:
                    if not self._stop.is_set():
                        share_done = None if self.share_done is None else round(self.share_done, 4)
                        self._replace(replace(self._marker, heartbeat_at=self._clock(), share_done=share_done))
            except (ObjectChangedError, ObjectMissingError) as error:
                self._lost = f"another process replaced its marker ({error})"
                return
            except StorageError as error:
                _log.warning("The coalescer's heartbeat could not be written; it will be retried: %s", error)

    def _replace(self, marker: Marker) -> None:
        try:
            self._etag = self._storage.write(self._key, _content(marker), if_match=self._etag).etag
        except ObjectChangedError:
            # Our earlier write may have succeeded although its response was lost.
            found = read_marker(self._storage, self._key)
            if found is None or found[0].writer != marker.writer:
                raise
            self._etag = self._storage.write(self._key, _content(marker), if_match=found[1]).etag
        self._marker = marker
        self._beaten_at = time.monotonic()

    def require_held(self) -> None:
        """Raise unless the claim is still ours; call it before every delete.

        Raises:
            CdiError: COALESCER_FAILED where another coalescer took over, or may have taken over.
        """
        why = self._lost
        silent_seconds = time.monotonic() - self._beaten_at
        if why is None and silent_seconds > self._lease_seconds / 2:
            why = f"its last heartbeat is {silent_seconds:.0f} s old"
        if why:
            raise self._lost_claim(why)

    def _lost_claim(self, why: str) -> CdiError:
        return CdiError(
            FailureClass.COALESCER_FAILED,
            f"This coalescer lost its claim on {self._what}: {why}. It stopped; nothing is lost or doubled.",
            next_step="Let the other one finish, or run the coalescer again: it continues where this one stopped.",
            detail=dict(_LOST),
        )

    def complete(self, **figures: Any) -> None:
        """Write COMPLETE with the day's figures (objects, bytes, offsets, fingerprint).

        Raises:
            CdiError: COALESCER_FAILED where another coalescer took over, or may have taken over.
        """
        self.require_held()
        self._end(MarkerState.COMPLETE, **figures)

    def fail(self, reason: str, **figures: Any) -> None:
        """Write FAILED with the reason, and the day's figures where they are known.

        Raises:
            CdiError: COALESCER_FAILED where another coalescer took over: the marker is its own.
        """
        self._end(MarkerState.FAILED, reason=reason, **figures)

    def _end(self, state: MarkerState, **figures: Any) -> None:
        self._stop.set()
        with self._lock:
            now = self._clock()
            ended = replace(self._marker, state=state, heartbeat_at=now, completed_at=now, share_done=None, **figures)
            try:
                self._replace(ended)
            except (ObjectChangedError, ObjectMissingError) as error:
                self._lost = f"another process replaced its marker ({error})"
                raise self._lost_claim(self._lost) from error
        self._ended = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            return
        self._release(error)
        # Whatever failed: the other coalescer merges and deletes the same objects, so that is why.
        if (
            self._lost
            and isinstance(error, Exception)
            and not (isinstance(error, CdiError) and _LOST <= error.detail.items())
        ):
            raise self._lost_claim(self._lost) from error


def _content(marker: Marker) -> bytes:
    return json.dumps(marker.to_json(), indent=1).encode()
