"""A lease: an exclusive right kept in storage, so that it holds across machines and installations.

One small JSON object, replaced by compare and swap only. Clocks are never compared: a holder is alive while its
heartbeat is seen to change, and dead if it does not change for the lease time.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from cdi_dagster.storage.interface import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    Storage,
    StorageError,
)

DEFAULT_LEASE_SECONDS = 60.0
"""How long a heartbeat may stay unchanged: six intervals. A killed holder blocks others this long."""
_HEARTBEATS_PER_LEASE = 6
_MOST_LOST_RACES = 10
_RACE_PAUSE_SECONDS = 0.05

_log = logging.getLogger(__name__)


class LeaseHeldError(Exception):
    """Another live process holds the lease.

    Attributes:
        holder: on whose behalf.
        named: holder and process, for a person.
        since: when it took the lease, by its own clock.
    """

    def __init__(self, value: dict[str, Any]) -> None:
        self.holder = str(value.get("holder"))
        self.named = _named(value)
        self.since = str(value.get("since"))
        super().__init__(f"held by {self.named} since {self.since}")


def _named(value: dict[str, Any]) -> str:
    return f"{value.get('holder')} ({value.get('process')})"


def live_holder(storage: Storage, key: str, now: datetime) -> tuple[str, str] | None:
    """Return holder and time of a lease as a reader sees it who cannot watch it: here clocks are compared.

    Args:
        storage: where it is kept.
        key: of the object.
        now: aware; a heartbeat that is older than twice the lease time is that of a killed holder.

    Raises:
        StorageError: it cannot be read.
    """
    stored = storage.head(key)
    if stored is None or now - stored.modified_at > timedelta(seconds=2 * DEFAULT_LEASE_SECONDS):
        return None
    try:
        value = json.loads(storage.read(key))
    except (ObjectMissingError, ValueError):
        return None
    if not isinstance(value, dict) or not value or value.get("released"):
        return None
    return str(value.get("holder")), str(value.get("since"))


class Lease:
    """Held during the `with` block; a thread writes the heartbeat.

    Args:
        storage: where it is kept.
        key: of the object.
        holder: on whose behalf. The lease is this process's: another one is refused, of the same holder too.
        lease_seconds: how long a holder's heartbeat may stay unchanged.
        log: called once with the reason, if it waits for a holder that may be dead.
        sleep: called to wait while watching another holder.

    Attributes:
        lease_seconds: as given.
        lost: why it is no longer ours, once that is known; `is_lost` looks.

    Raises:
        LeaseHeldError: on entering, after at most a heartbeat of the live holder.
        StorageError: on entering, where it cannot be read or written.
    """

    def __init__(
        self,
        storage: Storage,
        key: str,
        holder: str,
        *,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
        log: Callable[[str], None] = _log.info,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._storage = storage
        self._key = key
        self._holder = holder
        # The random part: the processes of two containers of one host may have the same number.
        self._process = f"{socket.gethostname()}:{os.getpid()}#{os.urandom(3).hex()}"
        self.lease_seconds = lease_seconds
        self._log = log
        self._sleep = sleep
        self._beats = 0
        self._since = ""
        self._etag = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease heartbeat", daemon=True)
        self.lost: str | None = None

    def __enter__(self) -> Self:
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._etag = self._acquire()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self.lost is None:
            try:
                # Not deleted: a delete cannot be conditional.
                self._storage.write(self._key, self._content(released=True), if_match=self._etag)
            except StorageError as failed:
                _log.warning("The lease %s could not be released; it expires: %s", self._key, failed)

    def is_lost(self) -> bool:
        """Whether another process has taken it, as the storage has it now; False where that cannot be read."""
        if self.lost is None:
            try:
                if self._etag_if_ours() is None:
                    self.lost = "another process took it"
            except StorageError as error:
                _log.warning("It is unknown who has the lease %s: %s", self._key, error)
        return self.lost is not None

    def _acquire(self) -> str:
        watched: str | None = None
        deadline = 0.0
        lost_races = 0
        while True:
            etag, value = self._present()
            is_free = value is None or value.get("released")
            if is_free or (etag == watched and time.monotonic() >= deadline):
                try:
                    if etag is None:
                        return self._storage.write(self._key, self._content(), if_absent=True).etag
                    return self._storage.write(self._key, self._content(), if_match=etag).etag
                except (ObjectExistsError, ObjectChangedError, ObjectMissingError):
                    # Another process was faster: read again. Losing every time means that conditional writes fail.
                    lost_races += 1
                    if lost_races >= _MOST_LOST_RACES:
                        raise
                    self._sleep(_RACE_PAUSE_SECONDS * lost_races)
                    continue
            if watched is not None and etag != watched and value is not None:
                raise LeaseHeldError(value)
            if watched is None:
                watched, deadline = etag, time.monotonic() + self.lease_seconds
                who = f"{_named(value)} since {value.get('since')}" if value else "an unknown holder"
                self._log(f"Waiting for {who}: without a heartbeat for {self.lease_seconds:.0f} s it counts as killed")
            self._sleep(self.lease_seconds / _HEARTBEATS_PER_LEASE / 4)

    def _present(self) -> tuple[str | None, dict[str, Any] | None]:
        """Return ETag and content of the object; content that is not a lease has no holder."""
        stored = self._storage.head(self._key)
        if stored is None:
            return None, None
        try:
            with self._storage.open(self._key, etag=stored.etag) as stream:
                value = json.loads(stream.read())
        except (ObjectChangedError, ObjectMissingError):
            return self._present()
        except ValueError:
            value = None
        return stored.etag, value if isinstance(value, dict) else None

    def _content(self, *, released: bool = False) -> bytes:
        value = {
            "holder": self._holder,
            "process": self._process,
            "since": self._since,
            "beats": self._beats,
            "released": released,
        }
        return json.dumps(value).encode()

    def _beat(self) -> None:
        while not self._stop.wait(self.lease_seconds / _HEARTBEATS_PER_LEASE):
            self._beats += 1
            try:
                self._etag = self._storage.write(self._key, self._content(), if_match=self._etag).etag
            except (ObjectChangedError, ObjectMissingError) as error:
                try:
                    etag = self._etag_if_ours()
                except StorageError:
                    continue  # unknown: the next heartbeat finds out
                if etag is None:
                    self.lost = f"another process took it ({error})"
                    return
                self._etag = etag  # our earlier write succeeded although its response was lost
            except StorageError as error:
                _log.warning("The heartbeat of %s could not be written; it will be retried: %s", self._key, error)

    def _etag_if_ours(self) -> str | None:
        etag, value = self._present()
        return etag if value is not None and value.get("process") == self._process else None
