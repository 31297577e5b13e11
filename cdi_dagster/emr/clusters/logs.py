"""What EMR keeps of a step and of bootstrap actions below LogUri, and its last lines, scrubbed."""

import gzip
import zlib
from collections import deque

from cdi_dagster.core.log_lines import scrub
from cdi_dagster.storage.interface import Storage

_TAIL_LINES = 60


def step_log_keys(cluster_id: str, step_id: str | None) -> tuple[str, ...]:
    """Return the keys of a step's logs below LogUri, the most telling one last.

    spark-submit writes its Python program's output, traceback and all, to its own stdout; its stderr is the JVM's log.
    """
    folder = f"{cluster_id}/steps/{step_id}"
    return tuple(f"{folder}/{name}.gz" for name in ("controller", "stderr", "stdout")) if step_id else ()


def bootstrap_log_keys(logs: Storage, cluster_id: str) -> tuple[str, ...]:
    """Return the keys of what the bootstrap actions of every node wrote to stderr."""
    listed = (stored.key for stored in logs.list(f"{cluster_id}/node/"))
    return tuple(key for key in listed if "/bootstrap-actions/" in key and key.endswith("/stderr.gz"))


def tail(logs: Storage, key: str) -> tuple[str, ...] | None:
    """Return the last lines of a log; None where it is not there (yet)."""
    if logs.head(key) is None:
        return None
    last: deque[str] = deque(maxlen=_TAIL_LINES)
    with logs.open(key) as source, gzip.GzipFile(fileobj=source) as lines:
        try:
            for line in lines:
                text = line.decode("utf-8", errors="replace").rstrip()
                if text:
                    last.append(text)
        except (EOFError, OSError, zlib.error):
            last.append("(the rest of this log cannot be read)")
    return tuple(scrub(line) for line in last)
