"""The exclusive right to coalesce a day, or a shard of it: kept in the marker, by compare and swap.

Of two coalescers of a day, or of a shard, one works and the other gets an error. Shards of one count work side by side.
"""

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from cdi_dagster.clock import utc_now
from cdi_dagster.coalescer.marker import (
    InvalidMarkerError,
    Marker,
    MarkerState,
    marker_content,
    read_marker,
    with_shard,
)
from cdi_dagster.coalescer.shard import WHOLE_DAY, Shard
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
_ATTEMPTS = 10
"""For each shard: a write that fails because another shard's came first is tried again."""
_PAUSE_SECONDS = 0.01
_LOST = {"lost_claim": True}.items()

_log = logging.getLogger(__name__)


class Claim:
    """The exclusive right to coalesce a collection's day, or a shard of it, kept alive by a thread; a context manager.

    Entering writes RUNNING (or raises); `complete` and `fail` write the end; an exception writes FAILED.

    Args:
        storage: the corporate root.
        day: what is coalesced.
        shard: which shard of it. Shards of another count, or the whole day, are never coalesced at the same time.
        lease_seconds: how long a RUNNING marker counts as alive without a heartbeat. The same for every coalescer and
            for `MarkerCoalescerStatus`.
        clock: the time now, aware.

    Attributes:
        took_over: the killed coalescer whose claim was taken over, if any.
        replaced: shards of another count that the marker was of, none of which is alive any more.
        share_done: how much of the work is done, 0 to 1, for the next heartbeat; whoever works sets it.
    """

    def __init__(
        self,
        storage: Storage,
        day: CollectionDay,
        *,
        shard: Shard = WHOLE_DAY,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._storage = storage
        self._what = f"{day.collection.id} of {day.storage_day}" + ("" if shard.is_whole else f", shard {shard}")
        self._shard = shard
        self._key = coalescer_marker_key(day)
        self._lease_seconds = lease_seconds
        self._clock = clock or utc_now
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="coalescer heartbeat", daemon=True)
        self._lost: str | None = None
        self._ended = False
        self.took_over: str | None = None
        self.replaced: tuple[Shard, ...] = ()
        self.share_done: float | None = None

    def __enter__(self) -> Self:
        now = self._clock()
        # The random part distinguishes two claims of one process.
        writer = f"{socket.gethostname()}:{os.getpid()}#{os.urandom(3).hex()}"
        self._marker = Marker(state=MarkerState.RUNNING, started_at=now, heartbeat_at=now, writer=writer)
        try:
            self._acquire()
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
            ours = found and found[0].of(self._shard)
            if found and (ours is None or ours.writer != self._marker.writer):
                self._lost = f"{(ours or found[0]).writer} has replaced its marker"
            elif found:
                self._day, self._etag = found
                self.fail(f"{type(error).__name__}: {error}" if str(error) else f"stopped by {type(error).__name__}")
        except (StorageError, InvalidMarkerError, CdiError) as marker_error:
            # The first error matters more; without this marker the claim ends with its lease.
            _log.warning("The coalescer's FAILED marker could not be written: %s", marker_error)

    def _acquire(self) -> None:
        for attempt in self._attempts():
            found, etag = self._replaceable() or (None, None)
            claimed = with_shard(found, self._shard, self._marker)
            options: dict[str, Any] = {"if_match": etag} if etag else {"if_absent": True}
            try:
                self._etag = self._storage.write(self._key, marker_content(claimed), **options).etag
            except (ObjectExistsError, ObjectChangedError, ObjectMissingError):
                self._pause(attempt)  # another process was faster: read again
            else:
                self._day = claimed
                return
        raise self._changed_each_time()

    def _attempts(self) -> range:
        return range(_ATTEMPTS * self._shard.count)

    def _pause(self, attempt: int) -> None:
        time.sleep(random.uniform(0, _PAUSE_SECONDS * min(attempt, self._shard.count)))  # noqa: S311 - not for secrets

    def _changed_each_time(self) -> StorageError:
        return StorageError(f"{self._storage.uri(self._key)} changed during each attempt to write it: try again.")

    def _replaceable(self) -> tuple[Marker, str] | None:
        """Return a marker in which the claim may be entered with its ETag, or None where there is none."""
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
        claims = found[0].claims()
        same_shards = found[0].count == self._shard.count
        self.replaced = () if same_shards else tuple(shard for shard, _ in claims)
        for shard, marker in claims:
            if shard == self._shard or not same_shards:
                self._require_dead(shard, marker)
        return found

    def _require_dead(self, shard: Shard, marker: Marker) -> None:
        """Raise where another coalescer is at work by that marker; note the one that was killed."""
        if marker.state is not MarkerState.RUNNING or marker.writer == self._marker.writer:
            return
        silent_seconds = (self._clock() - marker.heartbeat_at).total_seconds()
        if silent_seconds <= self._lease_seconds:
            as_shard = "" if shard == self._shard else f" (as shard {shard})"
            as_shard = " (unsharded)" if as_shard and shard.is_whole else as_shard
            raise CdiError(
                FailureClass.COALESCER_RUNNING,
                f"Another coalescer ({marker.writer}) has been working on {self._what}{as_shard} since "
                f"{marker.started_at:%H:%M:%S} UTC; its last heartbeat is {silent_seconds:.0f} s old.",
                next_step=f"Wait for it. If it was killed, its claim ends {self._lease_seconds:.0f} s after that.",
            )
        self.took_over = f"{marker.writer} (silent for {silent_seconds:.0f} s)"

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
        for attempt in self._attempts():
            day = with_shard(self._day, self._shard, marker)
            try:
                self._etag = self._storage.write(self._key, marker_content(day), if_match=self._etag).etag
            except ObjectChangedError:
                # Another shard wrote its own; or our earlier write succeeded although its response was lost.
                self._pause(attempt)
                found = read_marker(self._storage, self._key)
                ours = found and found[0].of(self._shard)
                if found is None or ours is None or ours.writer != marker.writer:
                    raise
                self._day, self._etag = found
            else:
                self._day, self._marker, self._beaten_at = day, marker, time.monotonic()
                return
        raise self._changed_each_time()

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
