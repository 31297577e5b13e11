"""How far the workers are while they work: small datagrams from every task to the driver.

Purely informational: a lost, late or foreign datagram changes a line on the run page and nothing else, and no task
waits for or fails on one. Counts that matter come back as task results. `ProgressSender` runs in the workers,
`ProgressBoard` in the driver.
"""

import json
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from cdi_dagster.core.amounts import size_text

_SEND_INTERVAL_SECONDS: Final = 0.5
_DATAGRAM_BYTES: Final = 512
_SILENT_SECONDS: Final = 15
"""A block of records takes a second or two; longer than this without one, a task waits for something."""


@dataclass(frozen=True, kw_only=True)
class ProgressAddress:
    """Where the driver listens.

    Attributes:
        host: address or name of the driver.
        port: its UDP port.
        token: proves that a datagram is of this job.
    """

    host: str
    port: int
    token: str


class ProgressSender:
    """Sends the driver what one task has done so far, at most twice a second."""

    def __init__(self, address: ProgressAddress | None, task_index: int) -> None:
        self._address = address
        self._task_index = task_index
        self._due = 0.0
        self._socket: socket.socket | None = None

    def done(self, *, objects: int, compressed_bytes: int, last: bool = False) -> None:
        """State the task's totals. Cumulative, so that the next datagram makes up for a lost one."""
        now = time.monotonic()
        if self._address is None or (now < self._due and not last):
            return
        self._due = now + _SEND_INTERVAL_SECONDS
        message = json.dumps([self._address.token, self._task_index, objects, compressed_bytes])
        try:
            if self._socket is None:
                self._socket = _udp_socket(self._address.host)
            self._socket.sendto(message.encode(), (self._address.host, self._address.port))
        except OSError:
            self._address = None  # the driver cannot be reached: continue without progress, silently and for good

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()


class ProgressBoard:
    """Adds up what the tasks report and makes a sentence of it.

    Attributes:
        address: what the senders need, or None where no socket could be opened.
    """

    def __init__(
        self, host: str, *, objects: int, input_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._objects = objects
        self._input_bytes = input_bytes
        self._clock = clock
        self._started = self._advanced = clock()
        self._done_by_task: dict[int, tuple[int, int]] = {}
        self._token = secrets.token_hex(8)
        self._socket: socket.socket | None = None
        self.address: ProgressAddress | None = None
        try:
            self._socket = _udp_socket(host)
            self._socket.bind((host, 0))
            self._socket.setblocking(False)
            self.address = ProgressAddress(host=host, port=self._socket.getsockname()[1], token=self._token)
        except OSError:
            self.close()

    def listen(self) -> None:
        """Receive the datagrams that have arrived, without waiting."""
        while self._socket is not None:
            try:
                token, *numbers = json.loads(self._socket.recv(_DATAGRAM_BYTES))
                task_index, objects, compressed_bytes = map(int, numbers)
            except BlockingIOError:
                return
            except (OSError, ValueError, TypeError):
                continue  # not one of ours, or damaged
            if token == self._token:
                if self._done_by_task.get(task_index) != (objects, compressed_bytes):
                    self._advanced = self._clock()
                self._done_by_task[task_index] = (objects, compressed_bytes)

    def numbers(self) -> dict[str, float | int | None]:
        """Return objects and bytes done of total, bytes a second, and seconds left (None while unknown)."""
        total = self._input_bytes
        done = min(sum(done for _, done in self._done_by_task.values()), total)
        elapsed = max(self._clock() - self._started, 1e-9)
        rate = done / elapsed
        return {
            "objects_done": min(sum(objects for objects, _ in self._done_by_task.values()), self._objects),
            "objects_total": self._objects,
            "bytes_done": done,
            "bytes_total": total,
            "bytes_per_second": round(rate),
            "seconds_left": round((total - done) / rate, 1) if rate > 0 else None,
        }

    def text(self) -> str:
        """Return the numbers as a sentence for the run page; while nothing is read, with what the tasks wait for."""
        numbers = self.numbers()
        left, objects = numbers["seconds_left"], f"{numbers['objects_done']} of {numbers['objects_total']} objects"
        if not self._done_by_task:
            return f"{objects} read; waits for Spark to start the first worker"
        if left is None:
            return f"{objects} read; waits for their first bytes from corporate storage, or their data keys"
        text = f"{objects}, {size_text(numbers['bytes_done'] or 0)} of {size_text(self._input_bytes)}"
        if numbers["bytes_done"] == self._input_bytes:
            return f"{text}; waits for the last records to be written"
        silent = self._clock() - self._advanced
        if silent >= _SILENT_SECONDS:
            return f"{text}; nothing for {silent:.0f} s: waits for corporate storage, data keys or the published root"
        return f"{text}, {size_text(numbers['bytes_per_second'] or 0)}/s, about {left:.0f} s left"

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _udp_socket(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM)
