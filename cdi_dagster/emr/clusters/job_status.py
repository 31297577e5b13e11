"""What EMR shows of a cluster and a step on it, translated into the states of the seam `emr.backend`. Pure."""

from cdi_dagster.emr.backend import JobState, JobStatus
from cdi_dagster.emr.clusters.api import ClusterView, is_about_capacity
from cdi_dagster.emr.launch_plan import AttemptOutcome

CLUSTER_ENDING = ("TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS")
_STEP_ENDED_BADLY = ("FAILED", "CANCELLED", "INTERRUPTED")
_STEP_ENDED = ("COMPLETED", *_STEP_ENDED_BADLY)
_THE_STEPS_OWN_END = ("", "STEP_FAILURE", "ALL_STEPS_COMPLETED")
"""Reasons of a cluster's end that follow from its steps. With any other, the cluster took the step with it."""


def job_status(
    view: ClusterView, *, is_own_cluster: bool, was_there: bool = False, ready_at: float | None, now: float
) -> JobStatus:
    """Translate what was observed of a cluster and our step on it. Pure.

    A step that ended decides first, whatever the cluster does by then: it may have been ended since.

    Args:
        view: as observed.
        is_own_cluster: whether the cluster was started, and so is ended, by us.
        was_there: whether it was started for an earlier step.
        ready_at: when the cluster was ready for steps, where an earlier poll has shown it.
        now: epoch seconds.
    """
    is_up = view.state in ("RUNNING", "WAITING") or view.step_state == "RUNNING"
    ready_at = ready_at or view.ready_at or (now if is_up else None)
    state, lost_by, reason = _meaning(view, has_run=ready_at is not None, was_there=was_there)
    is_ending = view.state in CLUSTER_ENDING
    step_ended_badly = view.step_state in _STEP_ENDED_BADLY
    return JobStatus(
        state=state,
        where=f"Cluster {view.cluster_id}",
        native_state=view.state + (f", its step {view.step_state}" if view.step_state else ""),
        lost_by=lost_by,
        reason=reason,
        job_id=view.step_id,
        ready_at=ready_at,
        is_billed=is_own_cluster and (view.state == "BOOTSTRAPPING" or ready_at is not None),
        idle_since=view.idle_since if was_there else None,
        is_settled=not (is_own_cluster and step_ended_badly)
        or view.state == "WAITING"
        or (is_ending and bool(view.reason_code)),
        is_ended=is_ending or view.step_state in _STEP_ENDED or (not is_own_cluster and view.step_state is None),
        ended_at=view.step_ended_at,
        log_uri=view.log_uri,
        log_is_expected=view.step_state == "FAILED" or lost_by is AttemptOutcome.BOOTSTRAP,
    )


def _meaning(view: ClusterView, *, has_run: bool, was_there: bool) -> tuple[JobState, AttemptOutcome | None, str]:
    if view.step_state == "COMPLETED":
        return JobState.COMPLETED, None, ""
    if view.step_state == "FAILED" and view.reason_code in _THE_STEPS_OWN_END:
        return JobState.FAILED, None, view.step_reason
    if view.state in CLUSTER_ENDING:
        why = f"{view.state} ({view.reason_code or 'no reason code'}): {view.reason_message or 'no message'}"
        if was_there and not view.step_began:
            # It ended, mostly for idling, while the step was on its way: nobody meant the step.
            return JobState.LOST, AttemptOutcome.INTERNAL, why
        return JobState.LOST, _lost_by(view, has_run=has_run), why
    if view.step_state in _STEP_ENDED_BADLY:
        return JobState.LOST, AttemptOutcome.ENDED_BY_SOMEONE, f"the step was {view.step_state}"
    before_running = {"STARTING": JobState.STARTING, "BOOTSTRAPPING": JobState.PREPARING}
    return before_running.get(view.state, JobState.RUNNING), None, ""


def _lost_by(view: ClusterView, *, has_run: bool) -> AttemptOutcome:
    is_capacity = is_about_capacity(f"{view.reason_code} {view.reason_message}")
    match view.reason_code:
        case "BOOTSTRAP_FAILURE":
            return AttemptOutcome.BOOTSTRAP
        case "INSTANCE_FLEET_TIMEOUT":
            return AttemptOutcome.NO_CAPACITY
        case "VALIDATION_ERROR" if not is_capacity:
            return AttemptOutcome.REJECTED
        case "USER_REQUEST":
            return AttemptOutcome.ENDED_BY_SOMEONE
    if has_run:
        return AttemptOutcome.INSTANCE_LOST
    return AttemptOutcome.NO_CAPACITY if is_capacity else AttemptOutcome.INTERNAL
