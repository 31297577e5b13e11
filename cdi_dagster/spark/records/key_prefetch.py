"""Requests the data keys of coming blocks while others are processed.

One call follows the other, each for all keys collected meanwhile: every call wakes a thread that competes with the
engine for Python's lock, which costs more than a quick key service does. If one takes long, further calls overtake it.
Internal to `records`.
"""

import threading
import time
from collections.abc import Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from cdi_dagster.spark.records.keys import KeyRef, KeyResolver

KeyRequest: TypeAlias = Future[Mapping[KeyRef, bytes | None]]
"""The future result of one call: keys of several blocks."""

_LONG_SECONDS = 0.005
_MOST_CALLS = 16  # at once


class KeyPrefetch:
    """Calls the resolver in its own threads; used by one thread.

    Args:
        keys: where data keys come from.
    """

    def __init__(self, keys: KeyResolver) -> None:
        self._keys = keys
        self._threads = ThreadPoolExecutor(_MOST_CALLS, thread_name_prefix="key-prefetch")
        self._lock = threading.Lock()  # guards everything below
        self._collected: set[KeyRef] = set()
        self._next: KeyRequest = Future()
        self._calls = 0
        self._last_started = 0.0

    def request(self, refs: Set[KeyRef]) -> KeyRequest:
        """Return the call that will return these keys."""
        with self._lock:
            self._collected |= refs
            request = self._next
            if not self._calls or time.monotonic() - self._last_started > _LONG_SECONDS:
                self._start_call()
        return request

    def send_now(self) -> None:
        """Start a call for the collected keys now: the caller has nothing else to do."""
        with self._lock:
            self._start_call()

    def _start_call(self) -> None:
        if self._collected and self._calls < _MOST_CALLS:
            self._threads.submit(self._call, *self._take())
            self._calls += 1

    def _take(self) -> tuple[set[KeyRef], KeyRequest]:
        refs, request = self._collected, self._next
        self._collected, self._next = set(), Future()
        self._last_started = time.monotonic()
        return refs, request

    def _call(self, refs: set[KeyRef], request: KeyRequest) -> None:
        """Call, and then call again for the keys collected meanwhile."""
        while refs:
            try:
                request.set_result(self._keys.data_keys(refs))
            except BaseException as error:  # noqa: BLE001 - for whoever waits
                request.set_exception(error)
                with self._lock:
                    _, waiting = self._take()
                waiting.set_exception(error)
            with self._lock:
                refs, request = self._take()
                self._calls -= not refs
