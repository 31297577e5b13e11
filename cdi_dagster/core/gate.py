"""The gate: nothing is ingested while the coalescer runs.

A coalescer status is what a source (AWS Batch, our own marker, a quiet listing) found out about one collection and
storage day. Only COMPLETE opens the gate; "could not read" is UNKNOWN, and UNKNOWN waits.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass


class CoalescerState(StrEnum):
    """What the coalescer is doing about one collection and storage day."""

    NOT_STARTED = "NOT_STARTED"
    RUNNING = "RUNNING"
    FAILED = "FAILED"
    COMPLETE = "COMPLETE"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, kw_only=True)
class CoalescerStatus:
    """A state and the sentence that explains it.

    Attributes:
        state: one of `CoalescerState`.
        reason: a sentence for the person who waits, naming job, times and source.
        fingerprint: of the listing the coalescer left, where the state is COMPLETE and the source knows it.
        completed_at: when it completed (aware, UTC), where known.
        next_step: what to do about a closed gate, where that differs from its failure class's next step.
        run_coalesces: whether a run of the day may coalesce it, which opens the gate: Dagster does that here
            (`CDI_COALESCER_IN_DAGSTER`), and nobody is at work on it.
    """

    state: CoalescerState
    reason: str
    fingerprint: str | None = None
    completed_at: datetime | None = None
    next_step: str | None = None
    run_coalesces: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the gate is open."""
        return self.state is CoalescerState.COMPLETE


class CoalescerStatusSource(Protocol):
    """Reports what the coalescer is doing."""

    def status(self, day: CollectionDay) -> CoalescerStatus:
        """Return the state with a reason. Never raises: a failure to read is UNKNOWN, with the reason."""


_CLOSED = {
    CoalescerState.NOT_STARTED: FailureClass.COALESCER_NOT_STARTED,
    CoalescerState.RUNNING: FailureClass.COALESCER_RUNNING,
    CoalescerState.FAILED: FailureClass.COALESCER_FAILED,
    CoalescerState.UNKNOWN: FailureClass.COALESCER_UNKNOWN,
}


def class_of(status: CoalescerStatus) -> FailureClass | None:
    """Return the failure class of a closed gate; None of an open one."""
    return _CLOSED.get(status.state)


def require_open(status: CoalescerStatus) -> None:
    """Return where the gate is open.

    Raises:
        CdiError: COALESCER_RUNNING, _NOT_STARTED, _FAILED or _UNKNOWN, with the status's own reason.
    """
    failure_class = class_of(status)
    if failure_class:
        raise CdiError(failure_class, status.reason, next_step=status.next_step)
