"""What the status of a job means, as a truth table: it goes on, or the attempt has ended, and how. Pure.

Success is a job that COMPLETED *and* whose closing report arrived and adds up. What the launcher does after any other
end is decided in `launch_plan`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.full_disk import reports_full
from cdi_dagster.emr.backend import JobState, JobStatus
from cdi_dagster.emr.launch_plan import AttemptOutcome


@dataclass(frozen=True, kw_only=True)
class AttemptEnd:
    """How an attempt ended: what the launcher acts on, and the failure that a person reads (None of a success)."""

    outcome: AttemptOutcome
    failure: CdiError | None = None


@dataclass(frozen=True, kw_only=True)
class JobMessages:
    """What the job itself reported by now: its closing report, or why it failed."""

    report: Mapping[str, Any] | None = None
    failure: CdiError | None = None


_CLASS_OF_LOSS = {
    AttemptOutcome.BOOTSTRAP: FailureClass.BOOTSTRAP_FAILED,
    AttemptOutcome.ENDED_BY_SOMEONE: FailureClass.CLUSTER_LOST,
    AttemptOutcome.INSTANCE_LOST: FailureClass.CLUSTER_LOST,
}
"""Any other loss came before the job ran: LAUNCH_FAILED."""
_MEMORY = re.compile(
    r"OutOfMemoryError|Container killed by YARN for exceeding|exceeding (physical |virtual )?memory limits"
    r"|exit(ed with)? (code|status) 137|exitCode: 137|Cannot allocate memory|oom-kill",
    re.IGNORECASE,
)
_MISSING_OBJECT = re.compile(r"(Status Code: 404|NoSuchKey|FileNotFoundException.*s3)", re.IGNORECASE)
_LOST_EXECUTORS = re.compile(r"(ExecutorLostFailure|Container released on a \*?lost\*? node|NodeManager.*LOST)", re.I)


def judge(status: JobStatus, messages: JobMessages, log_tail: Sequence[str] = ()) -> AttemptEnd | None:
    """Return how an attempt ended; None while it goes on.

    Args:
        status: as observed.
        messages: read after the status, so that what the job reported before it ended is in them.
        log_tail: last lines of its log, once they are known.
    """
    if status.lost_by is AttemptOutcome.ENDED_BY_SOMEONE and is_a_loss(messages.failure):
        messages = JobMessages(report=messages.report)
    match status.state:
        case JobState.COMPLETED:
            return _completed(status, messages)
        case JobState.FAILED | JobState.LOST if messages.failure is not None:
            return _killed_for_memory(status, messages.failure, log_tail) or _reported(messages.failure)
        case JobState.FAILED:
            return _failed(status, log_tail)
        case JobState.LOST:
            outcome = status.lost_by or AttemptOutcome.INTERNAL
            return _end(outcome, _CLASS_OF_LOSS.get(outcome, FailureClass.LAUNCH_FAILED), status, status.reason)
    return None


def is_a_loss(failure: CdiError | None) -> bool:
    """Whether a job only noticed that its JVM or cluster is gone, and not why."""
    return failure is not None and failure.failure_class is FailureClass.CLUSTER_LOST


def refused(message: str, *, for_capacity: bool) -> AttemptEnd:
    """Return the end of an attempt whose request was refused."""
    outcome = AttemptOutcome.NO_CAPACITY if for_capacity else AttemptOutcome.REJECTED
    return AttemptEnd(
        outcome=outcome, failure=CdiError(FailureClass.LAUNCH_FAILED, f"EMR refused the request: {message}")
    )


def stuck_in_starting(status: JobStatus, seconds: float) -> AttemptEnd:
    """Return the end of an attempt that got no compute: EMR may wait for capacity for ever."""
    cause = f"{status.where} was still {status.state} after {seconds:.0f} s; EMR probably waits for capacity."
    return AttemptEnd(outcome=AttemptOutcome.NO_CAPACITY, failure=CdiError(FailureClass.LAUNCH_FAILED, cause))


def stuck_in_preparing(status: JobStatus, seconds: float) -> AttemptEnd:
    """Return the end of an attempt whose nodes are never ready."""
    cause = f"{status.where} was still being set up after {seconds:.0f} s; a bootstrap action hangs."
    return AttemptEnd(outcome=AttemptOutcome.BOOTSTRAP, failure=CdiError(FailureClass.BOOTSTRAP_FAILED, cause))


def over_deadline(status: JobStatus, seconds: float) -> AttemptEnd:
    """Return the end of an attempt that took longer than the whole launch may."""
    cause = f"{status.where} had not finished after {seconds:.0f} s, the budget of a run; what ran there was ended."
    next_step = (
        "Read its last progress. If the day is just large, raise the run deadline or give it a larger profile. "
        "Then run the day again."
    )
    failure = CdiError(FailureClass.JOB_FAILED, cause, next_step=next_step)
    return AttemptEnd(outcome=AttemptOutcome.DEADLINE, failure=failure)


def _completed(status: JobStatus, messages: JobMessages) -> AttemptEnd:
    if messages.report is not None:
        return _reconciled(messages.report)
    if messages.failure is not None:
        return _reported(messages.failure)
    return _end(AttemptOutcome.JOB, FailureClass.JOB_FAILED, status, "the step COMPLETED but no closing report arrived")


def _reconciled(report: Mapping[str, Any]) -> AttemptEnd:
    """Believe a report only if what it read is what it published and rejected, object by object."""
    for counts in report.get("objects") or ():
        if counts["read"] != counts["published"] + sum(counts["rejected"].values()):
            cause = f"{counts['key']} gave {counts['read']} envelopes, but the report does not account for all of them."
            failure = CdiError(FailureClass.COUNTS_DO_NOT_RECONCILE, cause, detail={"key": counts["key"]})
            return AttemptEnd(outcome=AttemptOutcome.JOB, failure=failure)
    return AttemptEnd(outcome=AttemptOutcome.SUCCEEDED)


def _reported(failure: CdiError) -> AttemptEnd:
    outcomes = {
        FailureClass.DKS_UNAVAILABLE: AttemptOutcome.KEY_SERVICE,
        FailureClass.OUT_OF_MEMORY: AttemptOutcome.OUT_OF_MEMORY,
        FailureClass.CLUSTER_LOST: AttemptOutcome.INSTANCE_LOST,
    }
    return AttemptEnd(outcome=outcomes.get(failure.failure_class, AttemptOutcome.JOB), failure=failure)


def _killed_for_memory(status: JobStatus, failure: CdiError, log_tail: Sequence[str]) -> AttemptEnd | None:
    """Return the end where the log explains what the job could only report as lost: its JVM was killed under it."""
    text = "\n".join(log_tail)
    if not is_a_loss(failure) or not _MEMORY.search(text):
        return None
    return _end(AttemptOutcome.OUT_OF_MEMORY, FailureClass.OUT_OF_MEMORY, status, _line(_MEMORY, text))


def _failed(status: JobStatus, log_tail: Sequence[str]) -> AttemptEnd:
    text = "\n".join((status.reason, *log_tail))
    if _MEMORY.search(text):
        return _end(AttemptOutcome.OUT_OF_MEMORY, FailureClass.OUT_OF_MEMORY, status, _line(_MEMORY, text))
    full = next((line.strip() for line in text.splitlines() if reports_full(line)), None)
    if full:
        return _end(AttemptOutcome.JOB, FailureClass.STORAGE_FULL, status, full[:300])
    if _MISSING_OBJECT.search(text):
        return _end(AttemptOutcome.JOB, FailureClass.INPUT_CHANGED, status, _line(_MISSING_OBJECT, text))
    if _LOST_EXECUTORS.search(text):
        return _end(AttemptOutcome.INSTANCE_LOST, FailureClass.CLUSTER_LOST, status, _line(_LOST_EXECUTORS, text))
    last = next((line for line in reversed(log_tail) if line.strip()), status.reason or "no log yet")
    return _end(AttemptOutcome.JOB, FailureClass.JOB_FAILED, status, f"the step FAILED: {last.strip()}")


def _end(outcome: AttemptOutcome, failure_class: FailureClass, status: JobStatus, what: str) -> AttemptEnd:
    return AttemptEnd(outcome=outcome, failure=CdiError(failure_class, f"{status.where}: {what}."))


def _line(pattern: re.Pattern[str], text: str) -> str:
    return next(line.strip() for line in text.splitlines() if pattern.search(line))[:300]
