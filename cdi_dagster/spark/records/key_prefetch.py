"""Asks for the data keys of coming blocks while others are worked on.

One call follows the other, each for all that has gathered meanwhile: every call wakes a thread that competes with the
engine for Python, which costs more than a quick key service does. Where one takes long, further calls overtake it.
Internal to `records`.
"""

import threading
import time
from collections.abc import Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from cdi_dagster.spark.records.keys import KeyRef, KeyResolver

Asked: TypeAlias = Future[Mapping[KeyRef, bytes | None]]
"""The answer to one call: keys of several blocks."""

_LONG_SECONDS = 0.005
_MOST_CALLS = 16  # at once


class KeyPrefetch:
    """Asks in threads of its own; for one thread to use.

    Args:
        keys: where data keys come from.
    """

    def __init__(self, keys: KeyResolver) -> None:
        self._keys = keys
        self._threads = ThreadPoolExecutor(_MOST_CALLS, thread_name_prefix="keys-ahead")
        self._lock = threading.Lock()  # guards everything below
        self._gathered: set[KeyRef] = set()
        self._next: Asked = Future()
        self._calls = 0
        self._last_began = 0.0

    def ask(self, refs: Set[KeyRef]) -> Asked:
        """Return the call that will have answered for these keys."""
        with self._lock:
            self._gathered |= refs
            asked = self._next
            if not self._calls or time.monotonic() - self._last_began > _LONG_SECONDS:
                self._begin_call()
        return asked

    def hurry(self) -> None:
        """Begin a call for what has gathered, now: somebody waits, with nothing else to do."""
        with self._lock:
            self._begin_call()

    def _begin_call(self) -> None:
        if self._gathered and self._calls < _MOST_CALLS:
            self._threads.submit(self._call, *self._take())
            self._calls += 1

    def _take(self) -> tuple[set[KeyRef], Asked]:
        refs, asked = self._gathered, self._next
        self._gathered, self._next = set(), Future()
        self._last_began = time.monotonic()
        return refs, asked

    def _call(self, refs: set[KeyRef], asked: Asked) -> None:
        """Call, and go on with what has gathered meanwhile."""
        while refs:
            try:
                asked.set_result(self._keys.data_keys(refs))
            except BaseException as error:  # noqa: BLE001 - for whoever waits
                asked.set_exception(error)
                with self._lock:
                    _, waiting = self._take()
                waiting.set_exception(error)
            with self._lock:
                refs, asked = self._take()
                self._calls -= not refs
