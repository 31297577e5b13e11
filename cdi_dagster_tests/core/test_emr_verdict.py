"""The verdict over an EMR cluster, as a truth table."""

from itertools import product

import pytest

from cdi_dagster.core.emr_verdict import (
    Observation,
    Progress,
    Trouble,
    TroubleKind,
    judge,
    over_deadline,
    rejected,
    stuck_in_bootstrap,
    stuck_in_starting,
)
from cdi_dagster.core.failures import CdiError, FailureClass

K, F = TroubleKind, FailureClass
CLUSTER_STATES = (
    "STARTING",
    "BOOTSTRAPPING",
    "RUNNING",
    "WAITING",
    "TERMINATING",
    "TERMINATED",
    "TERMINATED_WITH_ERRORS",
)
STEP_STATES = (None, "PENDING", "RUNNING", "CANCEL_PENDING", "COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED")
DKS_DOWN = CdiError(F.DKS_UNAVAILABLE, "No answer.")
CHANGED = CdiError(F.INPUT_CHANGED, "a.gz is gone.")


def seen(cluster_state: str, step_state: str | None = None, **more: object) -> Observation:
    return Observation(cluster_id="j-1", cluster_state=cluster_state, step_state=step_state, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (seen("STARTING"), Progress.GOING_ON),
        (seen("BOOTSTRAPPING", "PENDING"), Progress.GOING_ON),
        (seen("RUNNING", "RUNNING", ran=True), Progress.GOING_ON),
        (seen("WAITING", "COMPLETED", report_arrived=True), Progress.SUCCEEDED),
        (
            seen("TERMINATING", "COMPLETED", report_arrived=True, reason_code="ALL_STEPS_COMPLETED"),
            Progress.SUCCEEDED,
        ),
        (
            seen("TERMINATED_WITH_ERRORS", "COMPLETED", report_arrived=True, reason_code="INSTANCE_FAILURE"),
            Progress.SUCCEEDED,
        ),
        (seen("TERMINATED", "COMPLETED"), (K.JOB, F.JOB_FAILED)),
        (seen("TERMINATED", "COMPLETED", job_failure=CHANGED), (K.JOB, F.INPUT_CHANGED)),
        (
            seen("TERMINATED_WITH_ERRORS", reason_code="VALIDATION_ERROR", reason_message="Subnet is bad"),
            (K.REJECTED, F.LAUNCH_FAILED),
        ),
        (
            seen("TERMINATED_WITH_ERRORS", reason_code="VALIDATION_ERROR", reason_message="vCPU limit of 64 reached"),
            (K.NO_CAPACITY, F.LAUNCH_FAILED),
        ),
        (
            seen("TERMINATED_WITH_ERRORS", reason_code="INSTANCE_FLEET_TIMEOUT"),
            (K.NO_CAPACITY, F.LAUNCH_FAILED),
        ),
        (
            seen(
                "TERMINATED_WITH_ERRORS",
                reason_code="INTERNAL_ERROR",
                reason_message="Insufficient capacity for m5.xlarge",
            ),
            (K.NO_CAPACITY, F.LAUNCH_FAILED),
        ),
        (seen("TERMINATED_WITH_ERRORS", reason_code="INTERNAL_ERROR"), (K.INTERNAL, F.LAUNCH_FAILED)),
        (seen("TERMINATED_WITH_ERRORS", reason_code="INSTANCE_FAILURE"), (K.INTERNAL, F.LAUNCH_FAILED)),
        (seen("TERMINATED_WITH_ERRORS"), (K.INTERNAL, F.LAUNCH_FAILED)),
        (
            seen("TERMINATED_WITH_ERRORS", reason_code="BOOTSTRAP_FAILURE"),
            (K.BOOTSTRAP, F.BOOTSTRAP_FAILED),
        ),
        (
            seen("TERMINATED_WITH_ERRORS", "RUNNING", reason_code="INSTANCE_FAILURE", ran=True),
            (K.INSTANCE_LOST, F.CLUSTER_LOST),
        ),
        (
            seen("TERMINATED_WITH_ERRORS", "FAILED", reason_code="INSTANCE_FAILURE", ran=True),
            (K.INSTANCE_LOST, F.CLUSTER_LOST),
        ),
        (
            seen("TERMINATED_WITH_ERRORS", "FAILED", reason_code="INTERNAL_ERROR", ran=True),
            (K.INSTANCE_LOST, F.CLUSTER_LOST),
        ),
        (
            seen("TERMINATED", "CANCELLED", reason_code="USER_REQUEST", ran=True),
            (K.ENDED_BY_SOMEONE, F.CLUSTER_LOST),
        ),
        (seen("TERMINATED", "FAILED", reason_code="USER_REQUEST", ran=True), (K.ENDED_BY_SOMEONE, F.CLUSTER_LOST)),
        (seen("TERMINATING", "PENDING", reason_code="USER_REQUEST"), (K.ENDED_BY_SOMEONE, F.CLUSTER_LOST)),
        (seen("WAITING", "CANCELLED", ran=True), (K.ENDED_BY_SOMEONE, F.CLUSTER_LOST)),
        (
            seen("TERMINATING", "FAILED", ran=True, reason_code="STEP_FAILURE", job_failure=DKS_DOWN),
            (K.KEY_SERVICE, F.DKS_UNAVAILABLE),
        ),
        (
            seen("TERMINATING", "FAILED", ran=True, reason_code="STEP_FAILURE", job_failure=CHANGED),
            (K.JOB, F.INPUT_CHANGED),
        ),
        (
            seen("WAITING", "FAILED", ran=True, log_tail=["java.lang.OutOfMemoryError: Java heap space"]),
            (K.OUT_OF_MEMORY, F.OUT_OF_MEMORY),
        ),
        (
            seen("WAITING", "FAILED", ran=True, log_tail=["Container killed by YARN for exceeding memory limits"]),
            (K.OUT_OF_MEMORY, F.OUT_OF_MEMORY),
        ),
        (
            seen("WAITING", "FAILED", ran=True, step_reason="Step exited with code 137"),
            (K.OUT_OF_MEMORY, F.OUT_OF_MEMORY),
        ),
        (
            seen("WAITING", "FAILED", ran=True, log_tail=["AmazonS3Exception: Not Found (Status Code: 404)"]),
            (K.JOB, F.INPUT_CHANGED),
        ),
        (
            seen("WAITING", "FAILED", ran=True, log_tail=["ExecutorLostFailure (executor 3 exited)"]),
            (K.INSTANCE_LOST, F.CLUSTER_LOST),
        ),
        (seen("WAITING", "FAILED", ran=True, log_tail=["KeyError: 'x'", ""]), (K.JOB, F.JOB_FAILED)),
    ],
)
def test_what_is_seen_has_one_verdict(
    observation: Observation, expected: Progress | tuple[TroubleKind, FailureClass]
) -> None:
    verdict = judge(observation)
    if isinstance(verdict, Trouble):
        assert (verdict.kind, verdict.failure.failure_class) == expected
    else:
        assert verdict is expected


@pytest.mark.parametrize(("cluster_state", "step_state"), list(product(CLUSTER_STATES, STEP_STATES)))
@pytest.mark.parametrize("reason_code", ["", "USER_REQUEST", "STEP_FAILURE", "INTERNAL_ERROR", "A_CODE_OF_TOMORROW"])
def test_only_a_completed_step_with_a_report_is_a_success(
    cluster_state: str, step_state: str | None, reason_code: str
) -> None:
    for report_arrived in (False, True):
        verdict = judge(seen(cluster_state, step_state, report_arrived=report_arrived, reason_code=reason_code))
        assert (verdict is Progress.SUCCEEDED) == (step_state == "COMPLETED" and report_arrived)


@pytest.mark.parametrize(("cluster_state", "step_state"), list(product(CLUSTER_STATES[4:], STEP_STATES)))
def test_a_cluster_that_ended_is_never_waited_for(cluster_state: str, step_state: str | None) -> None:
    assert judge(seen(cluster_state, step_state)) is not Progress.GOING_ON


def test_a_refused_request_is_not_tried_again_unless_it_was_for_capacity() -> None:
    assert rejected("ValidationException: Invalid InstanceProfile").kind is K.REJECTED
    assert rejected("LimitExceededException: instance quota reached").kind is K.NO_CAPACITY


def test_deadlines_name_the_cluster_and_the_time() -> None:
    assert stuck_in_starting("j-1", 1200).kind is K.NO_CAPACITY
    assert "j-1 was still STARTING after 1200 s" in stuck_in_starting("j-1", 1200).failure.cause
    assert stuck_in_bootstrap("j-1", 3600).kind is K.BOOTSTRAP
    assert over_deadline("j-1", 14400).kind is K.DEADLINE
