"""Failure classes: a failure has a class, a cause, an owner and a next step.

`CdiError` is the one exception that crosses module boundaries here. It travels as JSON from the Spark job to the
step launcher, and from there to the run page, the status row and the alert.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class FailureClass(StrEnum):
    """What kind of failure it is; decides what happens automatically and when an alert is sent (`FAILURE_GUIDE`)."""

    COALESCER_RUNNING = "COALESCER_RUNNING"
    COALESCER_NOT_STARTED = "COALESCER_NOT_STARTED"
    COALESCER_FAILED = "COALESCER_FAILED"
    COALESCER_UNKNOWN = "COALESCER_UNKNOWN"
    INPUT_CHANGED = "INPUT_CHANGED"
    OFFSETS_LOST = "OFFSETS_LOST"
    INPUT_INVALID = "INPUT_INVALID"
    LAUNCH_FAILED = "LAUNCH_FAILED"
    BOOTSTRAP_FAILED = "BOOTSTRAP_FAILED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    CLUSTER_LOST = "CLUSTER_LOST"
    DKS_UNAVAILABLE = "DKS_UNAVAILABLE"
    DKS_FORBIDDEN = "DKS_FORBIDDEN"
    RECORDS_REJECTED = "RECORDS_REJECTED"
    COUNTS_DO_NOT_RECONCILE = "COUNTS_DO_NOT_RECONCILE"
    DUPLICATE_RUN = "DUPLICATE_RUN"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    STORAGE_FULL = "STORAGE_FULL"
    WORKER_LOST = "WORKER_LOST"
    INTERRUPTED = "INTERRUPTED"
    TABLES_MISSING = "TABLES_MISSING"
    WEBSERVER_UNAVAILABLE = "WEBSERVER_UNAVAILABLE"
    JOB_FAILED = "JOB_FAILED"


class AlertTiming(StrEnum):
    """When an alert is sent for a run that failed (`cdi_dagster.core.alert_decision`)."""

    AT_ONCE = "AT_ONCE"
    SECOND_TIME = "SECOND_TIME"
    """When a run of the same day fails so a second time."""
    RETRIES_USED_UP = "RETRIES_USED_UP"
    """When nothing is retried automatically any more."""
    DAY_LATE = "DAY_LATE"
    """Not for the run; for its day, if that is late."""


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What a failure class means for the person who reads it.

    Attributes:
        meaning: one sentence.
        by_itself: what the software does automatically.
        next_step: what a person does, if anything.
        owner: who can fix the cause.
        rerun_helps: whether simply running again can succeed.
        alert_timing: when the alert is sent.
    """

    meaning: str
    by_itself: str
    next_step: str
    owner: str
    rerun_helps: bool
    alert_timing: AlertTiming


_ON_CALL = "CDI on-call engineer"
_COALESCER_TEAM = "corporate storage (coalescer) team"
_PLATFORM = "platform team"
_DKS_TEAM = "Data Key Service team"

FAILURE_GUIDE: Mapping[FailureClass, Guidance] = {
    FailureClass.COALESCER_RUNNING: Guidance(
        meaning="The coalescer is still merging this storage day.",
        by_itself="Nothing starts; the sensor launches the day when the coalescer is done.",
        next_step="Wait. If it is much later than usual, cdi status and the page of the input asset show why.",
        owner=_COALESCER_TEAM,
        rerun_helps=False,
        alert_timing=AlertTiming.DAY_LATE,
    ),
    FailureClass.COALESCER_NOT_STARTED: Guidance(
        meaning="The coalescer has not started on this storage day.",
        by_itself="Nothing starts; the sensor launches the day when the coalescer is done.",
        next_step="Find out why the coalescer has not started; run it for the day if it was missed.",
        owner=_COALESCER_TEAM,
        rerun_helps=False,
        alert_timing=AlertTiming.DAY_LATE,
    ),
    FailureClass.COALESCER_FAILED: Guidance(
        meaning="The coalescer failed on this storage day.",
        by_itself="Nothing starts; the sensor launches the day once the coalescer has succeeded.",
        next_step="Run the coalescer again for the day.",
        owner=_COALESCER_TEAM,
        rerun_helps=False,
        alert_timing=AlertTiming.DAY_LATE,
    ),
    FailureClass.COALESCER_UNKNOWN: Guidance(
        meaning="The coalescer's state could not be read, so it may be running.",
        by_itself="Nothing starts; the sensor checks again at every tick.",
        next_step="Fix what the reason names (permission, marker, network), or use override_gate if you know better.",
        owner=_ON_CALL,
        rerun_helps=True,
        alert_timing=AlertTiming.DAY_LATE,
    ),
    FailureClass.INPUT_CHANGED: Guidance(
        meaning="An object that was pinned has vanished or changed since.",
        by_itself="The day is pinned again and re-run when the gate is open; bounded.",
        next_step="If it happens twice, find what writes to corporate storage outside the coalescer.",
        owner=_COALESCER_TEAM,
        rerun_helps=True,
        alert_timing=AlertTiming.SECOND_TIME,
    ),
    FailureClass.OFFSETS_LOST: Guidance(
        meaning="The day lacks Kafka offsets that it had when it was pinned or published before.",
        by_itself="Nothing while the day's listing stays the same; once it changes, the sensor runs the day again.",
        next_step="Bring the object that the cause names back, from a version of the bucket or a backup.",
        owner=_COALESCER_TEAM,
        rerun_helps=False,
        alert_timing=AlertTiming.AT_ONCE,
    ),
    FailureClass.INPUT_INVALID: Guidance(
        meaning="The input cannot be ingested as it is: a bad name, overlapping offsets, unreadable gzip, no objects.",
        by_itself="Nothing: the run stops, before launch where possible.",
        next_step="Fix the object that the cause names, or move it out of the day's folder and keep it; with our own "
        "coalescer, run that for the day again; then run the day again.",
        owner=_ON_CALL,
        rerun_helps=False,
        alert_timing=AlertTiming.AT_ONCE,
    ),
    FailureClass.LAUNCH_FAILED: Guidance(
        meaning="Spark did not start: capacity, quota, validation, or something missing on the machine.",
        by_itself="Retried, then the next instance profile; bounded.",
        next_step="Read the attempts; add an instance profile, or raise the quota that they name.",
        owner=_PLATFORM,
        rerun_helps=True,
        alert_timing=AlertTiming.RETRIES_USED_UP,
    ),
    FailureClass.BOOTSTRAP_FAILED: Guidance(
        meaning="A bootstrap action of the cluster failed.",
        by_itself="One retry in the run; then the run is retried later; bounded.",
        next_step="Read the bootstrap log that the cause names; deploy the bundle again if it is missing.",
        owner=_ON_CALL,
        rerun_helps=True,
        alert_timing=AlertTiming.AT_ONCE,
    ),
    FailureClass.OUT_OF_MEMORY: Guidance(
        meaning="Executors or the driver were killed for memory.",
        by_itself="On EMR retried on larger profiles; then the run is retried later; bounded.",
        next_step="Give the day a larger profile and run it again.",
        owner=_ON_CALL,
        rerun_helps=True,
        alert_timing=AlertTiming.AT_ONCE,
    ),
    FailureClass.CLUSTER_LOST: Guidance(
        meaning="The cluster or the Spark process ended under a running step.",
        by_itself="Retried; bounded.",
        next_step="If nobody terminated it on purpose, run the day again.",
        owner=_PLATFORM,
        rerun_helps=True,
        alert_timing=AlertTiming.RETRIES_USED_UP,
    ),
    FailureClass.DKS_UNAVAILABLE: Guidance(
        meaning="The Data Key Service did not respond within the retry budget.",
        by_itself="Retried with backoff; later the run is retried.",
        next_step="Check the state of the Data Key Service; run the day again once it responds.",
        owner=_DKS_TEAM,
        rerun_helps=True,
        alert_timing=AlertTiming.RETRIES_USED_UP,
    ),
    FailureClass.DKS_FORBIDDEN: Guidance(
        meaning="The Data Key Service refused our certificate.",
        by_itself="Nothing: the run stops.",
        next_step="Renew or restore the client certificate, then run the day again.",
        owner=_ON_CALL,
        rerun_helps=False,
        alert_timing=AlertTiming.AT_ONCE,
    ),
    FailureClass.RECORDS_REJECTED: Guidance(
        meaning="More records were rejected than allowed. Nothing was published; the rejects were kept.",
        by_itself="Nothing: the run stops.",
        next_step="Read the rejects by reason; fix the cause, or run again with a higher max_rejected.",
        owner=_ON_CALL,
        rerun_helps=False,
        alert_timing=AlertTiming.AT_ONCE,
    ),
    FailureClass.COUNTS_DO_NOT_RECONCILE: Guidance(
        meaning="What was read differs from what was pinned, or from what was published and rejected.",
        by_itself="Nothing: the run stops and publishes nothing.",
        next_step="Compare the counts by object in the run report with the pinned input; report it as a defect.",
        owner=_ON_CALL,
        rerun_helps=False,
        alert_timing=AlertTiming.AT_ONCE,
    ),
    FailureClass.DUPLICATE_RUN: Guidance(
        meaning="Another run of this collection and day is already running.",
        by_itself="The other run continues; this one stops before it does anything.",
        next_step="Follow the run that the cause names.",
        owner=_ON_CALL,
        rerun_helps=False,
        alert_timing=AlertTiming.DAY_LATE,
    ),
    FailureClass.STORAGE_UNAVAILABLE: Guidance(
        meaning="Storage did not respond after all retries.",
        by_itself="The run is retried later; bounded.",
        next_step="Check the network and the state of S3 and DynamoDB, then run the day again.",
        owner=_PLATFORM,
        rerun_helps=True,
        alert_timing=AlertTiming.RETRIES_USED_UP,
    ),
    FailureClass.STORAGE_FULL: Guidance(
        meaning="A disk or quota is full, or a root is not writable.",
        by_itself="Nothing: the run stops; what was published before stays as it was.",
        next_step="Free space or give access where the cause states, then run the day again.",
        owner=_ON_CALL,
        rerun_helps=False,
        alert_timing=AlertTiming.AT_ONCE,
    ),
    FailureClass.WORKER_LOST: Guidance(
        meaning="The run's own process ended without an error, or never started.",
        by_itself="The run is retried later; bounded.",
        next_step="Check whether the machine that runs Dagster was restarted or ran out of memory, then run the "
        "day again.",
        owner=_ON_CALL,
        rerun_helps=True,
        alert_timing=AlertTiming.RETRIES_USED_UP,
    ),
    FailureClass.INTERRUPTED: Guidance(
        meaning="Dagster was stopped during the run: a deployment, or a restart of its machine.",
        by_itself="The run is retried as soon as Dagster is back; bounded.",
        next_step="Find out why Dagster is stopped repeatedly, then run the day again.",
        owner=_ON_CALL,
        rerun_helps=True,
        alert_timing=AlertTiming.RETRIES_USED_UP,
    ),
    FailureClass.TABLES_MISSING: Guidance(
        meaning="The records of the day are published, tables of them are not.",
        by_itself="The sensor runs the tables alone, from the published records; bounded.",
        next_step="Fix what the last run of the tables failed with, then materialise the tables of the day.",
        owner=_ON_CALL,
        rerun_helps=True,
        alert_timing=AlertTiming.RETRIES_USED_UP,
    ),
    FailureClass.WEBSERVER_UNAVAILABLE: Guidance(
        meaning="Dagster's webserver did not respond to a request of the terminal. Nothing was launched.",
        by_itself="Nothing that was requested; schedules and sensors need no webserver.",
        next_step="Start Dagster's webserver, or name where it is: CDI_DAGSTER_URL or --url.",
        owner=_ON_CALL,
        rerun_helps=True,
        alert_timing=AlertTiming.DAY_LATE,
    ),
    FailureClass.JOB_FAILED: Guidance(
        meaning="The job failed in a way that no other class describes.",
        by_itself="Nothing: the run stops.",
        next_step="Read the last log lines and report a defect.",
        owner=_ON_CALL,
        rerun_helps=False,
        alert_timing=AlertTiming.AT_ONCE,
    ),
}


class CdiError(Exception):
    """A failure with a class, a cause and a next step. Its text never holds payload.

    Attributes:
        failure_class: what kind of failure it is.
        cause: one sentence: what was tried, on what, what happened. Names objects and places, never content.
        next_step: what to do now; the class's own next step unless a more specific one was given.
        detail: small JSON values for machines (object key, offset, counts).
    """

    def __init__(
        self,
        failure_class: FailureClass,
        cause: str,
        *,
        next_step: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(failure_class, cause)
        self.failure_class = failure_class
        self.cause = cause
        self.next_step = next_step or FAILURE_GUIDE[failure_class].next_step
        self.detail: dict[str, Any] = dict(detail or {})

    def __str__(self) -> str:
        return f"{self.failure_class}: {self.cause} Next: {self.next_step}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross process boundaries by pickle (Spark's workers); keyword arguments need this.
        return (_rebuild_error, (self.to_json(),))

    def to_json(self) -> dict[str, Any]:
        """Return the failure as plain JSON values; `from_json` reads it back."""
        return {
            "failure_class": str(self.failure_class),
            "cause": self.cause,
            "next_step": self.next_step,
            "detail": self.detail,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "CdiError":
        """Read what `to_json` wrote; a class that this version does not know becomes JOB_FAILED."""
        name = str(value.get("failure_class"))
        known = name in FailureClass.__members__
        return cls(
            FailureClass(name) if known else FailureClass.JOB_FAILED,
            str(value.get("cause", "")) if known else f"{name}: {value.get('cause', '')}",
            next_step=value.get("next_step"),
            detail=value.get("detail"),
        )

    @classmethod
    def from_text(cls, text: str) -> "CdiError | None":
        """Read what `str` gave, as a log holds it; None where it is something else."""
        name, colon, rest = text.partition(": ")
        cause, has_next, next_step = rest.partition(" Next: ")
        if not (colon and has_next and name in FailureClass.__members__):
            return None
        return cls(FailureClass(name), cause, next_step=next_step)


def runbook_link(runbook_url: str, failure_class: FailureClass) -> str:
    """Return the link to the runbook's section about a failure class."""
    return f"{runbook_url}#{failure_class.lower()}"


class StepMayGoOnError(CdiError):
    """A launch failed here, but its step may still be running: what the step wrote must be left alone."""


def _rebuild_error(value: Mapping[str, Any]) -> CdiError:
    return CdiError.from_json(value)
