"""The verdict over an EMR cluster and its step: pure, a truth table.

Success is a step that is COMPLETED *and* a closing report of the job that arrived. Everything else is either still
going on or a `Trouble`, whose kind decides what the launcher does next (`cdi_dagster.core.launch_plan`). States and
reason codes are EMR's (ListSteps, DescribeCluster).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cdi_dagster.core.failures import CdiError, FailureClass

CLUSTER_BEFORE_RUNNING = ("STARTING", "BOOTSTRAPPING")
CLUSTER_ENDED = ("TERMINATED", "TERMINATED_WITH_ERRORS")
CLUSTER_ENDING = ("TERMINATING", *CLUSTER_ENDED)
STEP_ENDED_BADLY = ("FAILED", "CANCELLED", "INTERRUPTED")
_THE_STEPS_OWN_END = ("", "STEP_FAILURE", "ALL_STEPS_COMPLETED")
"""Reasons of a cluster's end that follow from its steps. With any other, the cluster took the step with it."""


class TroubleKind(StrEnum):
    """What went wrong with an attempt, as far as the next attempt is concerned."""

    REJECTED = "REJECTED"
    """EMR refused the request, or could not validate it: another try gives the same answer."""
    NO_CAPACITY = "NO_CAPACITY"
    """Capacity, quota, or no sign of life in STARTING: another choice of instances may do."""
    INTERNAL = "INTERNAL"
    """EMR failed before the cluster ran."""
    BOOTSTRAP = "BOOTSTRAP"
    """A bootstrap action failed."""
    INSTANCE_LOST = "INSTANCE_LOST"
    """Instances went away under a cluster that ran."""
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    """The driver or executors were killed for memory."""
    KEY_SERVICE = "KEY_SERVICE"
    """The key service did not answer within the job's own budget."""
    ENDED_BY_SOMEONE = "ENDED_BY_SOMEONE"
    """A person or another program terminated the cluster or cancelled the step."""
    DEADLINE = "DEADLINE"
    """The run took longer than its budget."""
    JOB = "JOB"
    """The job itself failed, or ended without its closing report: only a person can mend it."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why an attempt failed: what the launcher acts on, and the failure that a person reads."""

    kind: TroubleKind
    failure: CdiError


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One look at an attempt.

    Attributes:
        cluster_id: EMR's id.
        cluster_state: EMR's cluster state.
        reason_code: EMR's code for the last state change; empty where EMR gives none.
        reason_message: EMR's words for it.
        step_state: EMR's state of our step; None while it is not listed.
        step_reason: EMR's words for a failed step.
        ran: whether the cluster was ever seen RUNNING or WAITING, or our step RUNNING.
        report_arrived: whether the job's closing report arrived.
        job_failure: the failure that the job itself reported, if any.
        log_tail: last lines of the step's stderr and controller log, once known.
    """

    cluster_id: str
    cluster_state: str
    reason_code: str = ""
    reason_message: str = ""
    step_state: str | None = None
    step_reason: str = ""
    ran: bool = False
    report_arrived: bool = False
    job_failure: CdiError | None = None
    log_tail: Sequence[str] = ()


class Progress(StrEnum):
    """The two verdicts that are not a trouble."""

    GOING_ON = "GOING_ON"
    SUCCEEDED = "SUCCEEDED"


_CAPACITY = re.compile(
    r"insufficient.?(instance.?)?capacity|capacity[- ]not[- ]available|insufficientinstancecapacity|quota|limitexceeded"
    r"|vcpu.?limit|max.?spot|unfulfillable|not enough (free )?(capacity|addresses)|fleet.?(provisioning )?timeout",
    re.IGNORECASE,
)
_MEMORY = re.compile(
    r"OutOfMemoryError|Container killed by YARN for exceeding|exceeding (physical |virtual )?memory limits"
    r"|exit(ed with)? (code|status) 137|exitCode: 137|Cannot allocate memory|oom-kill",
    re.IGNORECASE,
)
_MISSING_OBJECT = re.compile(r"(Status Code: 404|NoSuchKey|FileNotFoundException.*s3)", re.IGNORECASE)
_LOST_EXECUTORS = re.compile(r"(ExecutorLostFailure|Container released on a \*?lost\*? node|NodeManager.*LOST)", re.I)


def judge(seen: Observation) -> Progress | Trouble:
    """Return what an observation means.

    A step that ended decides first, whatever the cluster does by then: a cluster terminates itself after its last
    step, and for a moment reports the end of the cluster as its own reason.
    """
    if seen.step_state == "COMPLETED":
        return _completed(seen)
    if seen.job_failure is not None and (_ended(seen) or seen.step_state in STEP_ENDED_BADLY):
        return _reported(seen.job_failure)
    if seen.step_state == "FAILED" and seen.reason_code in _THE_STEPS_OWN_END:
        return _failed_step(seen)
    if _ended(seen):
        return _ended_cluster(seen)
    if seen.step_state in STEP_ENDED_BADLY:
        return _trouble(
            TroubleKind.ENDED_BY_SOMEONE, FailureClass.CLUSTER_LOST, seen, f"the step was {seen.step_state}"
        )
    return Progress.GOING_ON


def rejected(message: str) -> Trouble:
    """Return the trouble of a RunJobFlow or AddJobFlowSteps request that EMR refused."""
    kind = TroubleKind.NO_CAPACITY if _CAPACITY.search(message) else TroubleKind.REJECTED
    return Trouble(kind=kind, failure=CdiError(FailureClass.LAUNCH_FAILED, f"EMR refused the request: {message}"))


def stuck_in_starting(cluster_id: str, seconds: float) -> Trouble:
    """Return the trouble of a cluster that showed no sign of life: EMR may wait for capacity for ever."""
    cause = f"Cluster {cluster_id} was still STARTING after {seconds:.0f} s; EMR is probably waiting for capacity."
    return Trouble(kind=TroubleKind.NO_CAPACITY, failure=CdiError(FailureClass.LAUNCH_FAILED, cause))


def stuck_in_bootstrap(cluster_id: str, seconds: float) -> Trouble:
    """Return the trouble of a cluster whose bootstrap actions do not come to an end."""
    cause = f"Cluster {cluster_id} was still BOOTSTRAPPING after {seconds:.0f} s; a bootstrap action hangs."
    return Trouble(kind=TroubleKind.BOOTSTRAP, failure=CdiError(FailureClass.BOOTSTRAP_FAILED, cause))


def over_deadline(cluster_id: str, seconds: float) -> Trouble:
    """Return the trouble of an attempt that took longer than the whole run may."""
    cause = f"Cluster {cluster_id} had not finished after {seconds:.0f} s, the budget of a run; it was terminated."
    return Trouble(
        kind=TroubleKind.DEADLINE,
        failure=CdiError(
            FailureClass.JOB_FAILED,
            cause,
            next_step="Read its last progress. If the day is just large, raise the run deadline or give it a larger "
            "profile, then run the day again.",
        ),
    )


def _ended(seen: Observation) -> bool:
    return seen.cluster_state in CLUSTER_ENDING


def _completed(seen: Observation) -> Progress | Trouble:
    if seen.report_arrived:
        return Progress.SUCCEEDED
    if seen.job_failure is not None:
        return _reported(seen.job_failure)
    # Messages travel by S3 and may be seconds behind the step's state: the launcher drains them before it asks.
    return _trouble(TroubleKind.JOB, FailureClass.JOB_FAILED, seen, "the step COMPLETED but no closing report arrived")


def _reported(failure: CdiError) -> Trouble:
    kinds = {
        FailureClass.DKS_UNAVAILABLE: TroubleKind.KEY_SERVICE,
        FailureClass.OUT_OF_MEMORY: TroubleKind.OUT_OF_MEMORY,
        FailureClass.CLUSTER_LOST: TroubleKind.INSTANCE_LOST,
    }
    return Trouble(kind=kinds.get(failure.failure_class, TroubleKind.JOB), failure=failure)


def _failed_step(seen: Observation) -> Trouble:
    text = "\n".join((seen.step_reason, *seen.log_tail))
    if _MEMORY.search(text):
        return _trouble(TroubleKind.OUT_OF_MEMORY, FailureClass.OUT_OF_MEMORY, seen, _line(_MEMORY, text))
    if _MISSING_OBJECT.search(text):
        return _trouble(TroubleKind.JOB, FailureClass.INPUT_CHANGED, seen, _line(_MISSING_OBJECT, text))
    if _LOST_EXECUTORS.search(text):
        return _trouble(TroubleKind.INSTANCE_LOST, FailureClass.CLUSTER_LOST, seen, _line(_LOST_EXECUTORS, text))
    last = next((line for line in reversed(seen.log_tail) if line.strip()), seen.step_reason or "no log yet")
    return _trouble(TroubleKind.JOB, FailureClass.JOB_FAILED, seen, f"the step FAILED: {last.strip()}")


def _ended_cluster(seen: Observation) -> Trouble:
    why = f"{seen.cluster_state} ({seen.reason_code or 'no reason code'}): {seen.reason_message or 'no message'}"
    capacity = _CAPACITY.search(f"{seen.reason_code} {seen.reason_message}")
    match seen.reason_code:
        case "BOOTSTRAP_FAILURE":
            return _trouble(TroubleKind.BOOTSTRAP, FailureClass.BOOTSTRAP_FAILED, seen, why)
        case "INSTANCE_FLEET_TIMEOUT":
            return _trouble(TroubleKind.NO_CAPACITY, FailureClass.LAUNCH_FAILED, seen, why)
        case "VALIDATION_ERROR" if not capacity:
            return _trouble(TroubleKind.REJECTED, FailureClass.LAUNCH_FAILED, seen, why)
        case "USER_REQUEST":
            return _trouble(TroubleKind.ENDED_BY_SOMEONE, FailureClass.CLUSTER_LOST, seen, why)
    if seen.ran:
        return _trouble(TroubleKind.INSTANCE_LOST, FailureClass.CLUSTER_LOST, seen, why)
    if capacity:
        return _trouble(TroubleKind.NO_CAPACITY, FailureClass.LAUNCH_FAILED, seen, why)
    return _trouble(TroubleKind.INTERNAL, FailureClass.LAUNCH_FAILED, seen, why)


def _trouble(kind: TroubleKind, failure_class: FailureClass, seen: Observation, what: str) -> Trouble:
    return Trouble(
        kind=kind,
        failure=CdiError(failure_class, f"Cluster {seen.cluster_id}: {what}.", detail={"cluster_id": seen.cluster_id}),
    )


def _line(pattern: re.Pattern[str], text: str) -> str:
    return next(line.strip() for line in text.splitlines() if pattern.search(line))[:300]
