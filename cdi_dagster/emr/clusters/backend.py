"""The seam `emr.backend` filled by EMR clusters: a cluster for each attempt, or steps on one that is there already.

Translates EMR's states and reason codes (DescribeCluster, ListSteps), and knows where EMR puts its logs. Only what is
sent to EMR is elsewhere: `request` has its form, `api` sends it.
"""

import gzip
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from cdi_dagster.core.log_lines import scrub
from cdi_dagster.emr.backend import AttemptDetails, JobRequest, JobState, JobStatus, LogTail
from cdi_dagster.emr.clusters.api import ClusterView, EmrApi, is_about_capacity
from cdi_dagster.emr.clusters.request import TAG_RUN_ID, estimated_cost, job_flow_request, step_request, tags_of
from cdi_dagster.emr.clusters.template import ClusterTemplate
from cdi_dagster.emr.launch_plan import AttemptOutcome, Profile
from cdi_dagster.emr.ledger import AttemptEntry
from cdi_dagster.storage import StorageError, open_storage
from cdi_dagster.storage.interface import Storage

EXISTING = "existing"
"""The one rung of the ladder where steps go to a cluster that is there."""
_CLUSTER_ENDING = ("TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS")
_STEP_ENDED_BADLY = ("FAILED", "CANCELLED", "INTERRUPTED")
_STEP_GOES_ON = ("PENDING", "RUNNING", "CANCEL_PENDING")
_THE_STEPS_OWN_END = ("", "STEP_FAILURE", "ALL_STEPS_COMPLETED")
"""Reasons of a cluster's end that follow from its steps. With any other, the cluster took the step with it."""
_TAIL_LINES = 60


class EmrClusters:
    """A `Backend` (see there) for one step, as the cluster template holds for its collection."""

    def __init__(
        self,
        api: EmrApi,
        template: ClusterTemplate,
        *,
        bundle_uri: str,
        existing_cluster_id: str | None,
        conf: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        """Send nothing yet.

        Args:
            api: EMR.
            template: what a cluster is made of.
            bundle_uri: what its bootstrap action installs.
            existing_cluster_id: add steps to this cluster, and never end it, instead of starting one.
            conf: more Spark configuration for every step.
            clock: epoch seconds now.
        """
        self._api = api
        self._template = template
        self._bundle_uri = bundle_uri
        self._existing_cluster_id = existing_cluster_id
        self._conf = conf
        self._clock = clock

    @property
    def ladder(self) -> tuple[Profile, ...]:
        """The profiles of the template, or the one that stands for the cluster that is there."""
        return self._template.ladder if self._existing_cluster_id is None else (Profile(name=EXISTING, size=0),)

    def submit(self, attempt: AttemptEntry, job: JobRequest) -> str:
        """Start a cluster that runs the step and ends, or add the step to the cluster that is there."""
        is_own = self._existing_cluster_id is None
        profile = self._template.profile(attempt.profile) if is_own else None
        step = step_request(
            self._template,
            profile,
            job.step,
            name=attempt.name,
            pipes=job.pipes,
            conf=self._conf,
            end_cluster_on_failure=is_own,
        )
        if profile is None:
            self._api.add_step(str(self._existing_cluster_id), step)
            return str(self._existing_cluster_id)
        tags = tags_of(job.step, job.run_id)
        return self._api.run_job_flow(
            job_flow_request(
                self._template, profile, name=attempt.name, step=step, tags=tags, bundle_uri=self._bundle_uri
            )
        )

    def find(self, attempt: AttemptEntry) -> Sequence[str]:
        """Return the clusters of the attempt's name, or the one that is there if it has a step of that name."""
        existing = self._existing_cluster_id
        if existing is None:
            return self._api.clusters_named(attempt.name, requested_at=attempt.requested_at)
        return [existing] if self._api.step_named(existing, attempt.name) is not None else []

    def observe(self, attempt: AttemptEntry) -> JobStatus:
        """Return how the cluster and the step are now."""
        view = self._api.observe(str(attempt.compute_id), attempt.name)
        return job_status(
            view, is_own_cluster=self._existing_cluster_id is None, ready_at=attempt.ready_at, now=self._clock()
        )

    def end(self, attempt: AttemptEntry) -> None:
        """Terminate the cluster; on one that is not ours, cancel the step alone."""
        cluster_id = str(attempt.compute_id)
        if self._existing_cluster_id is None:
            self._api.terminate(cluster_id)
        elif (step_id := attempt.job_id or self._api.step_named(cluster_id, attempt.name)) is not None:
            self._api.cancel_step(cluster_id, step_id)

    def set_owner(self, attempt: AttemptEntry, run_id: str) -> None:
        """Tag a cluster of ours with the run."""
        if self._existing_cluster_id is None:
            self._api.tag(str(attempt.compute_id), {TAG_RUN_ID: run_id})

    def log_tail(self, attempt: AttemptEntry, status: JobStatus) -> LogTail:
        """Return the last lines of the step's or the bootstrap actions' logs."""
        logs = open_storage(str(status.log_uri))
        try:
            if status.lost_by is AttemptOutcome.BOOTSTRAP:
                keys = _bootstrap_log_keys(logs, str(attempt.compute_id))
            else:
                keys = _step_log_keys(str(attempt.compute_id), attempt.job_id)
            tails = {key: tail for key in keys if (tail := _tail(logs, key)) is not None}
        except StorageError:
            tails = {}
        lines = tuple(line for tail in tails.values() for line in tail)
        return LogTail(lines=lines, is_complete=any(key.endswith("/stderr.gz") for key in tails))

    def describe(self, attempt: AttemptEntry) -> AttemptDetails:
        """Return the cluster, its page in the console, its logs, and what it cost about."""
        cluster_id = attempt.compute_id
        instance_hours, cost_usd = estimated_cost(self._template, attempt.profile, attempt.billed_seconds)
        parts = [self._template.log_uri, *([cluster_id] if cluster_id else [])]
        parts += ["steps", attempt.job_id] if attempt.job_id else []
        return AttemptDetails(
            where=f"cluster {cluster_id}" if cluster_id else "no cluster",
            link=self._api.console_link(cluster_id) if cluster_id else None,
            log_location="/".join(parts) + "/",
            instance_hours=instance_hours,
            cost_usd=cost_usd,
        )


def job_status(view: ClusterView, *, is_own_cluster: bool, ready_at: float | None, now: float) -> JobStatus:
    """Translate what was observed of a cluster and our step on it. Pure.

    A step that ended decides first, whatever the cluster does by then: a cluster terminates itself after its last
    step, and for a moment reports the end of the cluster as its own reason.

    Args:
        view: as observed.
        is_own_cluster: whether the cluster was started, and so is ended, by us.
        ready_at: when the cluster was ready for steps, where an earlier poll has shown it.
        now: epoch seconds.
    """
    is_up = view.state in ("RUNNING", "WAITING") or view.step_state == "RUNNING"
    ready_at = ready_at or view.ready_at or (now if is_up else None)
    state, lost_by, reason = _meaning(view, has_run=ready_at is not None)
    is_ending = view.state in _CLUSTER_ENDING
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
        is_settled=not (is_own_cluster and step_ended_badly) or (is_ending and bool(view.reason_code)),
        is_ended=is_ending or (not is_own_cluster and view.step_state not in _STEP_GOES_ON),
        log_uri=view.log_uri,
        log_is_expected=view.step_state == "FAILED" or lost_by is AttemptOutcome.BOOTSTRAP,
    )


def _meaning(view: ClusterView, *, has_run: bool) -> tuple[JobState, AttemptOutcome | None, str]:
    if view.step_state == "COMPLETED":
        return JobState.COMPLETED, None, ""
    if view.step_state == "FAILED" and view.reason_code in _THE_STEPS_OWN_END:
        return JobState.FAILED, None, view.step_reason
    if view.state in _CLUSTER_ENDING:
        why = f"{view.state} ({view.reason_code or 'no reason code'}): {view.reason_message or 'no message'}"
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


def _step_log_keys(cluster_id: str, step_id: str | None) -> tuple[str, ...]:
    """Return the logs of a step below LogUri, the most telling one last.

    spark-submit writes its Python program's output, traceback and all, to its own stdout; its stderr is the JVM's log.
    """
    folder = f"{cluster_id}/steps/{step_id}"
    return tuple(f"{folder}/{name}.gz" for name in ("controller", "stderr", "stdout")) if step_id else ()


def _bootstrap_log_keys(logs: Storage, cluster_id: str) -> tuple[str, ...]:
    listed = (stored.key for stored in logs.list(f"{cluster_id}/node/"))
    return tuple(key for key in listed if "/bootstrap-actions/" in key and key.endswith("/stderr.gz"))


def _tail(logs: Storage, key: str) -> tuple[str, ...] | None:
    if logs.head(key) is None:
        return None
    last: deque[str] = deque(maxlen=_TAIL_LINES)
    with logs.open(key) as source, gzip.GzipFile(fileobj=source) as lines:
        try:
            for line in lines:
                text = line.decode("utf-8", errors="replace").rstrip()
                if text:
                    last.append(text)
        except (EOFError, OSError, zlib.error):
            last.append("(the rest of this log cannot be read)")
    return tuple(scrub(line) for line in last)
