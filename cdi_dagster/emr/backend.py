"""The seam between a launch and what runs its Spark jobs: EMR clusters (`emr.clusters`), later EMR Serverless.

A backend submits, finds, observes and ends one job, and translates its own states into those below. It decides
nothing: what is retried, when a job is late, what a failure means is decided on this side, once for every backend.
A backend keeps no state of an attempt; what is known of it comes with each call, from the ledger.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from cdi_dagster.emr.launch_plan import AttemptOutcome, Profile
from cdi_dagster.emr.ledger import AttemptEntry
from cdi_dagster.interfaces import SparkStep


class RefusedError(Exception):
    """The request was refused: nothing was started, and sending it again gives the same response."""


class NoCapacityError(RefusedError):
    """Refused for capacity or a quota: another profile may be accepted."""


class ThrottledError(Exception):
    """The request was throttled: nothing was started."""


class ResponseLostError(Exception):
    """The request may or may not have been accepted: look the name up."""


class UnreachableError(Exception):
    """The backend did not respond, after the retries that make sense."""


class JobState(StrEnum):
    """How far a job is, as far as a launch is concerned."""

    STARTING = "STARTING"
    """Waits for compute."""
    PREPARING = "PREPARING"
    """Compute is there and is being set up."""
    RUNNING = "RUNNING"
    """The job runs, or could."""
    COMPLETED = "COMPLETED"
    """The job ended with exit code 0."""
    FAILED = "FAILED"
    """The job ended with an error of its own: its log shows which."""
    LOST = "LOST"
    """The job can no longer end well, for a reason that is not its own: `JobStatus.lost_by`."""


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What was observed of a job.

    Attributes:
        state: how far it is.
        where: what it runs on, at the start of a sentence ("Cluster j-1").
        native_state: the backend's own name for the state, for the log.
        lost_by: of a LOST one, what that is for the next attempt.
        reason: the backend's own reason for a FAILED or LOST one.
        job_id: the job's id, once it has one.
        ready_at: since when it could run (epoch seconds), as far as is known; None while it could not.
        is_billed: whether it is known to cost money of its own.
        idle_since: since when what it runs on idled, paid but unused, until it was given the job; None where that was
            started for it.
        is_settled: whether no better reason for its end is expected.
        is_ended: whether the job is over, or what it runs on is known to be ending.
        ended_at: when the job ended, as far as is known; a log of before is not whole.
        log_uri: where its logs are; None where none are kept.
        log_is_expected: whether a log that explains its failure is there or will come.
    """

    state: JobState
    where: str
    native_state: str
    lost_by: AttemptOutcome | None = None
    reason: str = ""
    job_id: str | None = None
    ready_at: float | None = None
    is_billed: bool = False
    idle_since: float | None = None
    is_settled: bool = True
    is_ended: bool = False
    ended_at: float | None = None
    log_uri: str | None = None
    log_is_expected: bool = False


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What is to run: the step, the Dagster run it is for, and the arguments by which the job reports (Pipes)."""

    step: SparkStep
    run_id: str
    pipes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What a job was given to run on.

    Attributes:
        compute_id: the backend's id.
        profile: of the ladder; what was there already may be larger than what was requested.
        was_there: whether it was there already, so that nothing was started.
    """

    compute_id: str
    profile: str
    was_there: bool = False


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Who could use what a job ran on, once that is over.

    Attributes:
        by_this_run: whether the run itself needs it again: a later step, or another attempt.
        other_runs: how many other runs may still need something; None where nobody is to have it.
    """

    by_this_run: bool = False
    other_runs: int | None = None

    @property
    def is_none_at_all(self) -> bool:
        """Whether it is certain that no run needs anything any more."""
        return not self.by_this_run and self.other_runs == 0


@dataclass(frozen=True, kw_only=True)
class LogTail:
    """The last lines of a job's log, scrubbed, and whether what explains a failure is among them yet."""

    lines: tuple[str, ...]
    is_complete: bool


@dataclass(frozen=True, kw_only=True)
class AttemptDetails:
    """What people are shown of an attempt: where it ran, a link to it and to its log, and an estimate of its cost."""

    where: str
    link: str | None
    log_location: str
    instance_hours: float
    cost_usd: float | None


class Backend(Protocol):
    """Runs Spark jobs, one for each attempt. Every method but `submit` may be called again and again."""

    @property
    def ladder(self) -> tuple[Profile, ...]:
        """What can be tried, first choice first."""

    def submit(self, attempt: AttemptEntry, job: JobRequest) -> Compute:
        """Start the job, by one request, on compute that is there or on new; return what it runs on.

        Raises:
            RefusedError, ThrottledError: nothing was started.
            ResponseLostError: it may have been.
            CdiError: LAUNCH_FAILED where the job cannot be requested at all.
        """

    def find(self, attempt: AttemptEntry) -> Sequence[Compute]:
        """Look for an attempt by its name; return what it runs on, oldest first. Raises UnreachableError."""

    def observe(self, attempt: AttemptEntry) -> JobStatus:
        """Return how its job is now. Raises UnreachableError."""

    def end(self, attempt: AttemptEntry) -> None:
        """Request the end of the job, and of what it runs on; harmless where it ended. Raises UnreachableError."""

    def release(self, attempt: AttemptEntry, demand: Demand) -> bool:
        """Give up what the job ran on, once that is over: kept for others where there is demand, else ended.

        Where there is no demand at all, what earlier jobs left for others is ended, too.

        Returns whether that is known to be done. May be called again. Raises UnreachableError.
        """

    def set_owner(self, attempt: AttemptEntry, run_id: str) -> None:
        """Mark what it runs on with the run that follows it now. Raises UnreachableError."""

    def log_tail(self, attempt: AttemptEntry, status: JobStatus) -> LogTail:
        """Return what there is of its log by now; never raises, since no log is no reason to lose an outcome."""

    def describe(self, attempt: AttemptEntry) -> AttemptDetails:
        """Return what people are shown of it; sends no request."""


@dataclass(frozen=True, kw_only=True)
class Timings:
    """How long is waited for what, seconds; the fields of `launcher` document each."""

    poll_interval_seconds: float
    start_deadline_seconds: float
    bootstrap_deadline_seconds: float
    run_deadline_seconds: float
    log_wait_seconds: float
    blind_seconds: float


@dataclass(frozen=True, kw_only=True)
class LaunchContext:
    """What the parts of a launch need of the outside world.

    Attributes:
        backend: runs the jobs.
        timings: how long is waited for what.
        clock: epoch seconds now.
        sleep: waits so many seconds.
        log: writes to the run page.
        other_runs: counts the other runs that are under way or queued, and may need something to run on; takes
            whether this run itself needs nothing any more, which those that count later take into account.
    """

    backend: Backend
    timings: Timings
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    log: Callable[[str], None]
    other_runs: Callable[[bool], int | None]
