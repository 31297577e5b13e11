"""How many requests run at once: as many as there are, until S3 throttles them; then fewer, and slowly more again.

For `s3_small` only.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Gives requests their turns: half as many at once when S3 throttles, one more after as many successes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._most = math.inf
        self._slowed = 0

    @property
    def most(self) -> float:
        """How many may run at once."""
        return self._most

    @contextmanager
    def turn(self) -> Iterator[int]:
        """Wait for a turn, and have it during the block; yields what `slow_down` needs."""
        with self._changed:
            self._changed.wait_for(lambda: self._running < self._most)
            self._running += 1
            slowed = self._slowed
        try:
            yield slowed
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify()

    def slow_down(self, began: int) -> None:
        """A request was throttled, whose turn is not over; those that began before the last slowdown change nothing."""
        with self._changed:
            if began == self._slowed:
                self._slowed += 1
                self._most = max(1.0, min(self._most, self._running) / 2)

    def speed_up(self) -> None:
        """A request succeeded."""
        with self._changed:
            self._most += 1 / self._most
