"""What a look at an EMR cluster and its step means for an attempt, as a truth table: translated, then judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.emr.backend import JobStatus, NoCapacityError
from cdi_dagster.emr.clusters.api import ClusterView, refusal
from cdi_dagster.emr.clusters.job_status import job_status
from cdi_dagster.emr.clusters.logs import LogCopy
from cdi_dagster.emr.launch_plan import AttemptOutcome
from cdi_dagster.emr.step_outcome import (
    AttemptEnd,
    JobMessages,
    judge,
    over_deadline,
    refused,
    stuck_in_preparing,
    stuck_in_starting,
)

K, F = AttemptOutcome, FailureClass
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
LOST = CdiError(F.CLUSTER_LOST, "The JVM is gone.")
CHANGED = CdiError(F.INPUT_CHANGED, "a.gz is gone.")


@dataclass(frozen=True, kw_only=True)
class Look:
    """A look at a cluster, and what the job reported by then."""

    status: JobStatus
    messages: JobMessages
    log_tail: Sequence[str]

    def judge(self) -> AttemptEnd | None:
        return judge(self.status, self.messages, self.log_tail)


def seen(
    cluster_state: str,
    step_state: str | None = None,
    *,
    ran: bool = False,
    report_arrived: bool = False,
    job_failure: CdiError | None = None,
    log_tail: Sequence[str] = (),
    is_own_cluster: bool = True,
    **more: str,
) -> Look:
    view = ClusterView(cluster_id="j-1", state=cluster_state, step_state=step_state, **more)  # type: ignore[arg-type]
    return Look(
        status=job_status(view, is_own_cluster=is_own_cluster, ready_at=1.0 if ran else None, now=2.0),
        messages=JobMessages(report={} if report_arrived else None, failure=job_failure),
        log_tail=log_tail,
    )


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (seen("STARTING"), None),
        (seen("BOOTSTRAPPING", "PENDING"), None),
        (seen("RUNNING", "RUNNING", ran=True), None),
        (seen("WAITING", "COMPLETED", report_arrived=True), (K.SUCCEEDED, None)),
        (
            seen("TERMINATING", "COMPLETED", report_arrived=True, reason_code="ALL_STEPS_COMPLETED"),
            (K.SUCCEEDED, None),
        ),
        (
            seen("TERMINATED_WITH_ERRORS", "COMPLETED", report_arrived=True, reason_code="INSTANCE_FAILURE"),
            (K.SUCCEEDED, None),
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
        (seen("WAITING", "CANCELLED", ran=True, job_failure=LOST), (K.ENDED_BY_SOMEONE, F.CLUSTER_LOST)),
        (
            seen("TERMINATED", "FAILED", reason_code="USER_REQUEST", ran=True, job_failure=LOST),
            (K.ENDED_BY_SOMEONE, F.CLUSTER_LOST),
        ),
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
        (seen("WAITING", "FAILED", ran=True, job_failure=LOST), (K.INSTANCE_LOST, F.CLUSTER_LOST)),
        (
            seen("WAITING", "FAILED", ran=True, job_failure=LOST, log_tail=["driver exited with code 137"]),
            (K.OUT_OF_MEMORY, F.OUT_OF_MEMORY),
        ),
        (
            seen("WAITING", "FAILED", ran=True, log_tail=["java.io.IOException: No space left on device"]),
            (K.JOB, F.STORAGE_FULL),
        ),
    ],
)
def test_what_is_seen_has_one_meaning(look: Look, expected: tuple[AttemptOutcome, FailureClass | None] | None) -> None:
    end = look.judge()
    assert (end and (end.outcome, end.failure and end.failure.failure_class)) == expected


@pytest.mark.parametrize(("cluster_state", "step_state"), list(product(CLUSTER_STATES, STEP_STATES)))
@pytest.mark.parametrize("reason_code", ["", "USER_REQUEST", "STEP_FAILURE", "INTERNAL_ERROR", "A_CODE_OF_TOMORROW"])
def test_only_a_completed_step_with_a_report_is_a_success(
    cluster_state: str, step_state: str | None, reason_code: str
) -> None:
    for report_arrived in (False, True):
        end = seen(cluster_state, step_state, report_arrived=report_arrived, reason_code=reason_code).judge()
        assert (end == AttemptEnd(outcome=K.SUCCEEDED)) == (step_state == "COMPLETED" and report_arrived)


@pytest.mark.parametrize(("cluster_state", "step_state"), list(product(CLUSTER_STATES[4:], STEP_STATES)))
def test_a_cluster_that_ended_is_never_waited_for(cluster_state: str, step_state: str | None) -> None:
    assert seen(cluster_state, step_state).judge() is not None


def test_a_report_that_does_not_account_for_an_object_is_no_success() -> None:
    objects = [{"key": "a.gz", "read": 3, "published": 1, "rejected": {"BAD_JSON": 1}}]
    end = judge(seen("WAITING", "COMPLETED").status, JobMessages(report={"objects": objects}))
    assert end is not None
    assert end.failure is not None
    assert (end.outcome, end.failure.failure_class) == (K.JOB, F.COUNTS_DO_NOT_RECONCILE)


@pytest.mark.parametrize(("cluster_state", "step_state"), list(product(CLUSTER_STATES, STEP_STATES)))
def test_a_job_has_ended_with_its_step_or_its_cluster_and_on_ours_a_step_that_does_not_show_goes_on(
    cluster_state: str, step_state: str | None
) -> None:
    is_ending = cluster_state in CLUSTER_STATES[4:]
    step_goes_on = step_state in ("PENDING", "RUNNING", "CANCEL_PENDING")
    has_ended = is_ending or not (step_goes_on or step_state is None)
    assert seen(cluster_state, step_state).status.is_ended == has_ended
    assert seen(cluster_state, step_state, is_own_cluster=False).status.is_ended == (is_ending or not step_goes_on)


def test_a_failed_step_is_explained_once_its_own_cluster_gives_a_reason_for_its_end() -> None:
    assert not seen("RUNNING", "FAILED").status.is_settled
    # It outlived its step: that failed by itself.
    assert seen("WAITING", "FAILED").status.is_settled
    assert not seen("TERMINATING", "FAILED").status.is_settled
    assert seen("TERMINATING", "FAILED", reason_code="STEP_FAILURE").status.is_settled
    assert seen("WAITING", "FAILED", is_own_cluster=False).status.is_settled


def test_a_cluster_is_billed_from_its_first_instance_and_one_that_is_not_ours_never() -> None:
    assert not seen("STARTING").status.is_billed
    assert not seen("TERMINATED_WITH_ERRORS").status.is_billed
    assert seen("BOOTSTRAPPING").status.is_billed
    assert seen("TERMINATED", ran=True).status.is_billed
    assert not seen("RUNNING", "RUNNING", is_own_cluster=False).status.is_billed


def test_a_refused_request_is_not_tried_again_unless_it_was_for_capacity() -> None:
    assert not isinstance(refusal("ValidationException: Invalid InstanceProfile"), NoCapacityError)
    assert isinstance(refusal("LimitExceededException: instance quota reached"), NoCapacityError)
    assert refused("no", for_capacity=False).outcome is K.REJECTED
    assert refused("no", for_capacity=True).outcome is K.NO_CAPACITY


def test_deadlines_name_the_cluster_and_the_time() -> None:
    def cause(end: AttemptEnd, outcome: AttemptOutcome) -> str:
        assert end.outcome is outcome
        assert end.failure is not None
        return end.failure.cause

    starting, preparing = seen("STARTING").status, seen("BOOTSTRAPPING").status
    assert "j-1 was still STARTING after 1200 s" in cause(stuck_in_starting(starting, 1200), K.NO_CAPACITY)
    assert "j-1 was still being set up after 3600 s" in cause(stuck_in_preparing(preparing, 3600), K.BOOTSTRAP)
    assert "j-1 had not finished after 14400 s" in cause(over_deadline(starting, 14400), K.DEADLINE)


@pytest.mark.parametrize(
    ("copied_at", "ended_at", "is_whole"), [(99, 100.4, False), (100, 100.4, True), (101, 100.4, True), (1, None, True)]
)
def test_a_log_is_whole_once_it_was_copied_after_the_end_in_the_whole_seconds_of_s3(
    copied_at: float, ended_at: float | None, is_whole: bool
) -> None:
    assert LogCopy(tail=(), copied_at=copied_at).is_made_since(ended_at) is is_whole
