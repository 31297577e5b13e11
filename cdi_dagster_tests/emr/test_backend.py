"""A launch over a backend that has no clusters, scripted as EMR Serverless is: the seam is enough to launch by."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.spark_jobs import INGEST_DAILY
from cdi_dagster.core.storage_keys import launch_prefix
from cdi_dagster.emr.backend import (
    AttemptDetails,
    Backend,
    Compute,
    Demand,
    JobRequest,
    JobState,
    JobStatus,
    LogTail,
    ResponseLostError,
    ThrottledError,
    UnreachableError,
)
from cdi_dagster.emr.launch_plan import AttemptOutcome, Profile
from cdi_dagster.emr.launcher import BackendStepLauncher
from cdi_dagster.emr.ledger import AttemptEntry, LaunchLedger
from cdi_dagster.interfaces import LaunchEvidence, SparkStep
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.emr.launches import DAY, in_a_run

PREFIX = launch_prefix(AUDIT.on(DAY), "ingest_daily")
STARTING = JobStatus(state=JobState.STARTING, where="Job run r", native_state="SCHEDULED")
RUNNING = JobStatus(state=JobState.RUNNING, where="Job run r", native_state="RUNNING", job_id="r", ready_at=1.0)
COMPLETED = JobStatus(state=JobState.COMPLETED, where="Job run r", native_state="SUCCESS", job_id="r", is_ended=True)
LOST = JobStatus(
    state=JobState.LOST,
    where="Job run r",
    native_state="FAILED",
    lost_by=AttemptOutcome.NO_CAPACITY,
    reason="no workers",
    is_ended=True,
)


@dataclass
class ScriptedServerless:
    """One application; `StartJobRun` takes a client token, so a request that is sent again starts nothing new."""

    root: str
    statuses: list[JobStatus | Exception]
    submit_errors: list[Exception] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    requests: int = 0
    ended: list[str] = field(default_factory=list)
    ladder: tuple[Profile, ...] = (Profile(name="usual", size=1), Profile(name="large", size=2))

    def submit(self, attempt: AttemptEntry, job: JobRequest) -> Compute:
        self.requests += 1
        if self.submit_errors and isinstance(self.submit_errors[0], ThrottledError):
            raise self.submit_errors.pop(0)
        if attempt.name not in self.jobs:
            self.jobs.append(attempt.name)
            report = {"method": "report_custom_message", "params": {"payload": {"kind": "report", "report": {"n": 1}}}}
            message = json.dumps({"__dagster_pipes_version": "0.1", **report})
            open_storage(self.root).write(f"{PREFIX}/attempt-{attempt.number}/messages/1.json", message.encode())
        if self.submit_errors:
            raise self.submit_errors.pop(0)
        return Compute(compute_id="application", profile=attempt.profile)

    def find(self, attempt: AttemptEntry) -> Sequence[Compute]:
        return []

    def observe(self, attempt: AttemptEntry) -> JobStatus:
        assert attempt.compute_id == "application"
        status = self.statuses[0] if len(self.statuses) == 1 else self.statuses.pop(0)
        if isinstance(status, Exception):
            raise status
        return status

    def end(self, attempt: AttemptEntry) -> None:
        self.ended.append(attempt.name)
        self.statuses = [LOST]

    def release(self, attempt: AttemptEntry, demand: Demand) -> bool:
        return True

    def set_owner(self, attempt: AttemptEntry, run_id: str) -> None:
        pass

    def log_tail(self, attempt: AttemptEntry, status: JobStatus) -> LogTail:
        return LogTail(lines=(), is_complete=True)

    def describe(self, attempt: AttemptEntry) -> AttemptDetails:
        return AttemptDetails(
            where=f"job run {attempt.job_id}", link=None, log_location="s3://logs/", instance_hours=0.5, cost_usd=None
        )


def launch(scripted: ScriptedServerless, **config: float) -> LaunchEvidence | CdiError:
    """Launch in a run of its own."""

    class Launcher(BackendStepLauncher):
        def backend_for(self, step: SparkStep) -> Backend:
            return scripted

        def sleep(self, seconds: float) -> None:
            pass

    launched: list[LaunchEvidence | CdiError] = []

    def work(context: dg.OpExecutionContext) -> None:
        step = SparkStep(
            job=INGEST_DAILY,
            arguments=(),
            collection=AUDIT,
            storage_day=DAY,
            correlation_id=context.run.run_id,
            input_bytes=1,
        )
        try:
            launched.append(Launcher(published_root=scripted.root, **config).launch(context, step))
        except CdiError as error:
            launched.append(error)

    in_a_run(work)
    return launched[0]


@pytest.fixture
def root(tmp_path: Path) -> str:
    return (tmp_path / "published").as_uri()


def test_a_job_that_completes_and_reports_is_a_success(root: str) -> None:
    scripted = ScriptedServerless(root, [STARTING, UnreachableError("just now"), RUNNING, COMPLETED])
    evidence = launch(scripted)
    assert isinstance(evidence, LaunchEvidence)
    assert (evidence.report, evidence.log_location, evidence.cluster_id) == ({"n": 1}, "s3://logs/", "application")
    [attempt] = evidence.attempts
    assert (attempt.where, attempt.outcome) == ("usual, job run r", "SUCCEEDED")
    assert scripted.ended == []


def test_a_lost_response_is_sent_again_under_the_same_name_and_starts_one_job(root: str) -> None:
    scripted = ScriptedServerless(root, [COMPLETED], [ThrottledError("slow down"), ResponseLostError("cut")])
    assert isinstance(launch(scripted), LaunchEvidence)
    assert (len(scripted.jobs), scripted.requests) == (1, 3)


def test_what_is_lost_for_capacity_takes_the_next_profile_until_the_budget_is_used_up(root: str) -> None:
    error = launch(ScriptedServerless(root, [LOST]))
    assert isinstance(error, CdiError)
    assert error.failure_class is FailureClass.LAUNCH_FAILED
    assert [attempt["profile"] for attempt in error.detail["attempts"]] == ["usual", "large", "usual", "large", "usual"]


def test_a_job_over_its_deadline_is_ended_and_the_ledger_has_it(root: str) -> None:
    scripted = ScriptedServerless(root, [RUNNING])
    error = launch(scripted, run_deadline_seconds=1e-9)
    assert isinstance(error, CdiError)
    assert scripted.ended == scripted.jobs
    entry = LaunchLedger(open_storage(root), PREFIX).read()
    assert entry is not None
    assert [attempt.outcome for attempt in entry.attempts] == [AttemptOutcome.DEADLINE]
