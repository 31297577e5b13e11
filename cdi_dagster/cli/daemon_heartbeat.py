"""Whether the Dagster daemon runs, by the heartbeats that it leaves in its instance; asks no process of Dagster's.

For `cdi doctor` and `cdi watch`.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cdi_dagster.cli.dagster_home import open_instance
from cdi_dagster.core.amounts import duration_text

PATIENCE_SECONDS = 300.0
"""A daemon that runs leaves a heartbeat every 30 s."""
PART_PATIENCE_SECONDS = 1800.0
"""One part (scheduler, sensors, queue …) may be at a long piece of work; after this time Dagster calls it dead too."""


@dataclass(frozen=True, kw_only=True)
class DaemonState:
    """Whether the daemon runs, and how that is known: `its last heartbeat was 7 min ago`."""

    is_running: bool
    reason: str


def read_daemon(home: Path, now: datetime, *, patience_seconds: float = PATIENCE_SECONDS) -> DaemonState:
    """Return the state of the daemon of a Dagster home.

    Args:
        home: with a `dagster.yaml`.
        now: aware.
        patience_seconds: age of the youngest heartbeat from which on the daemon is dead.

    Raises:
        Exception: of many kinds, where the instance cannot be read.
    """
    with open_instance(home) as instance:
        statuses = instance.get_daemon_statuses().values() if instance else ()
    parts = [status for status in statuses if status.required]
    ages = {part.daemon_type: now.timestamp() - part.last_heartbeat.timestamp for part in parts if part.last_heartbeat}
    if not ages:
        return DaemonState(is_running=False, reason="it never ran")
    youngest = min(ages.values())
    hung = [name for name, age in ages.items() if age >= PART_PATIENCE_SECONDS]
    if hung and youngest < patience_seconds:
        reason = f"its part {hung[0]} has left no heartbeat for {duration_text(ages[hung[0]])}"
        return DaemonState(is_running=False, reason=reason)
    reason = f"its last heartbeat was {duration_text(youngest)} ago"
    return DaemonState(is_running=youngest < patience_seconds, reason=reason)
