"""The last lines of a failed step or bootstrap action, from where EMR puts its logs. They come late: a bounded wait."""

import gzip
import zlib
from collections import deque
from collections.abc import Callable, Iterable

from cdi_dagster.core.log_lines import scrub
from cdi_dagster.storage.interface import Storage, StorageError

_TAIL_LINES = 60


def step_log_keys(cluster_id: str, step_id: str) -> tuple[str, ...]:
    """Return the logs of a step below LogUri, the most telling one last.

    spark-submit writes what its Python program says, traceback and all, to its own stdout; its stderr is the JVM's log.
    """
    folder = f"{cluster_id}/steps/{step_id}"
    return tuple(f"{folder}/{name}.gz" for name in ("controller", "stderr", "stdout"))


def bootstrap_log_keys(storage: Storage, cluster_id: str) -> tuple[str, ...]:
    """Return the stderr logs of bootstrap actions below LogUri."""
    listed = (stored.key for stored in storage.list(f"{cluster_id}/node/"))
    return tuple(key for key in listed if "/bootstrap-actions/" in key and key.endswith("/stderr.gz"))


def wait_for_tail(
    storage: Storage,
    keys: Callable[[], Iterable[str]],
    *,
    needed: str,
    wait_seconds: float,
    poll_seconds: float,
    sleep: Callable[[float], None],
) -> tuple[str, ...]:
    """Return the last lines of the logs, scrubbed, waiting until the needed one is there or the time is over.

    Args:
        storage: over LogUri.
        keys: names the logs now.
        needed: how the key of the log that is waited for ends.
        wait_seconds: the longest wait; 0 takes what is there.
        poll_seconds: how often to look.
        sleep: of the caller.
    """
    waited = 0.0
    while True:
        try:
            names = tuple(keys())
            found = {key: _tail(storage, key) for key in names}
        except StorageError:
            # No log is no reason to lose the verdict.
            found = {}
        present = {key: lines for key, lines in found.items() if lines is not None}
        if any(key.endswith(needed) for key in present) or waited >= wait_seconds:
            return tuple(line for lines in present.values() for line in lines)
        sleep(poll_seconds)
        waited += poll_seconds


def _tail(storage: Storage, key: str) -> tuple[str, ...] | None:
    if storage.head(key) is None:
        return None
    last: deque[str] = deque(maxlen=_TAIL_LINES)
    with storage.open(key) as source, gzip.GzipFile(fileobj=source) as lines:
        try:
            for line in lines:
                text = line.decode("utf-8", errors="replace").rstrip()
                if text:
                    last.append(text)
        except (EOFError, OSError, zlib.error):
            last.append("(the rest of this log cannot be read)")
    return tuple(scrub(line) for line in last)
