"""Waiting for what another process or thread does: on a condition, with one deadline for all tests.

A test that waits for a fixed time, or has a deadline of its own, fails on a slower machine. Here a wait that is in vain
reports what it waited for and what was there instead.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

PATIENCE_SECONDS = 240.0
"""Several times what the longest wait takes on two busy cores; only a test that fails waits for so long."""

Found = TypeVar("Found")


def wait_until(
    condition: Callable[[], Found],
    what: str,
    *,
    seen: Callable[[], object] | None = None,
    pause_seconds: float = 0.1,
) -> Found:
    """Wait until the condition is true and return its value.

    Args:
        condition: looks, and returns something true once it is there.
        what: is waited for: "the day is published".
        seen: what there is instead, for the report; without it the condition's last value.
        pause_seconds: between two looks.

    Raises:
        AssertionError: it did not come true within `PATIENCE_SECONDS`.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            instead = seen() if seen else repr(found)
            raise AssertionError(f"Waited {PATIENCE_SECONDS:.0f} s in vain until {what}. Instead: {instead}")
        time.sleep(pause_seconds)


def last_lines_of(*logs: Path, lines: int = 20) -> str:
    """Return the last lines of log files, as far as they are there."""
    found = [(log, log.read_text(errors="replace").splitlines()[-lines:]) for log in logs if log.exists()]
    return "\n".join(f"--- {log.name}\n" + "\n".join(tail) for log, tail in found)


@contextmanager
def reserved_port() -> Iterator[int]:
    """Reserve a port of loopback for a server of this test: nobody else is given it, and none listens on it yet.

    A port that was merely free a moment ago may be another test's by now. This one is bound without listening, which
    keeps others away and does not stop a server that sets SO_REUSEADDR, as all of ours do.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
