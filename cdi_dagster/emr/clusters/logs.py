"""What EMR keeps of a step and of bootstrap actions below LogUri, and its last lines, scrubbed."""

import gzip
import math
import zlib
from collections import deque
from dataclasses import dataclass

from cdi_dagster.core.log_lines import scrub
from cdi_dagster.storage.interface import Storage

_TAIL_LINES = 60


@dataclass(frozen=True, kw_only=True)
class LogCopy:
    """A log as EMR copied it last, which it does every five minutes while its writer runs, and once it has ended.

    Attributes:
        tail: its last lines, scrubbed.
        copied_at: epoch seconds; S3 has whole ones, rounded down.
    """

    tail: tuple[str, ...]
    copied_at: float

    def is_made_since(self, moment: float | None) -> bool:
        """Whether it was copied at or after a moment (epoch seconds), in whole seconds; also where that is unknown."""
        return moment is None or self.copied_at >= math.floor(moment)


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


def last_copy(logs: Storage, key: str) -> LogCopy | None:
    """Return a log as it was copied last; None where it is not there (yet)."""
    found = logs.head(key)
    if found is None:
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
    return LogCopy(tail=tuple(scrub(line) for line in last), copied_at=found.modified_at.timestamp())
