"""The seam `emr.backend` filled by EMR clusters: steps pass on clusters of ours, or share one that is configured.

A cluster runs one step at a time. Who may add a step to an idle one, or terminate it, is decided by claims (`sharing`);
where there is none, a cluster is started. What EMR shows is translated in `job_status`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from cdi_dagster.emr.backend import (
    AttemptDetails,
    Compute,
    Demand,
    JobRequest,
    JobStatus,
    LogTail,
    RefusedError,
    ThrottledError,
    UnreachableError,
)
from cdi_dagster.emr.clusters.api import EmrApi
from cdi_dagster.emr.clusters.job_status import job_status
from cdi_dagster.emr.clusters.logs import bootstrap_log_keys, last_copy, step_log_keys
from cdi_dagster.emr.clusters.pool import ClusterPool, PoolEntry
from cdi_dagster.emr.clusters.request import (
    TAG_DIGEST,
    TAG_PROFILE,
    TAG_RUN_ID,
    cluster_digest,
    estimated_cost,
    job_flow_request,
    step_request,
    tags_of,
)
from cdi_dagster.emr.clusters.sharing import SharedClusters
from cdi_dagster.emr.clusters.template import ClusterTemplate, ProfileTemplate
from cdi_dagster.emr.launch_plan import AttemptOutcome, Profile
from cdi_dagster.emr.ledger import AttemptEntry
from cdi_dagster.storage import StorageError, encryption, open_storage

EXISTING = "existing"
"""The one rung of the ladder where steps go to a cluster that is there."""


class EmrClusters:
    """A `Backend` (see there) for one step, as the cluster template holds for its collection."""

    def __init__(
        self,
        api: EmrApi,
        template: ClusterTemplate,
        pool: ClusterPool,
        *,
        bundle_uri: str,
        existing_cluster_id: str | None,
        idle_seconds: int,
        conf: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        """Send nothing yet.

        Args:
            api: EMR.
            template: what a cluster is made of.
            pool: the clusters that are passed on.
            bundle_uri: what its bootstrap action installs.
            existing_cluster_id: add steps to this cluster, and never end it, instead of starting one.
            idle_seconds: EMR ends a cluster that idles for so long.
            conf: more Spark configuration for every step.
            clock: epoch seconds now.
        """
        self._api = api
        self._template = template
        self._pool = pool
        self._sharing = SharedClusters(api, pool, clock=clock)
        self._bundle_uri = bundle_uri
        self._existing_cluster_id = existing_cluster_id
        self._idle_seconds = idle_seconds
        self._conf = conf
        self._clock = clock

    @property
    def ladder(self) -> tuple[Profile, ...]:
        """The profiles of the template, or the one that stands for the cluster that is there."""
        return self._template.ladder if self._existing_cluster_id is None else (Profile(name=EXISTING, size=0),)

    def submit(self, attempt: AttemptEntry, job: JobRequest) -> Compute:
        """Add the step to an idle cluster of ours that fits, or start one; or add it to the one that is configured."""
        if self._existing_cluster_id is not None:
            self._api.add_step(self._existing_cluster_id, self._step(attempt, job, None))
            return self._existing
        for entry in self._sharing.claims(attempt, self._digest, self._template):
            if self._is_added(entry, attempt, job):
                return Compute(compute_id=entry.cluster_id, profile=entry.profile, was_there=True)
        profile = self._template.profile(attempt.profile)
        tags = {TAG_PROFILE: profile.name, TAG_DIGEST: self._digest, **tags_of(job.step, job.run_id)}
        request = job_flow_request(
            self._template,
            profile,
            name=attempt.name,
            step=self._step(attempt, job, profile),
            tags=tags,
            bundle_uri=self._bundle_uri,
            idle_seconds=self._idle_seconds,
        )
        return Compute(compute_id=self._api.run_job_flow(request), profile=profile.name)

    def find(self, attempt: AttemptEntry) -> Sequence[Compute]:
        """Return the clusters of the attempt's name, and those with a step of that name that it claimed."""
        if self._existing_cluster_id is not None:
            is_there = self._api.step_named(self._existing_cluster_id, attempt.name) is not None
            return [self._existing] if is_there else []
        started = self._api.clusters_named(attempt.name, requested_at=attempt.requested_at)
        claimed = self._pool.claimed_by(attempt.name)
        return [
            *(Compute(compute_id=cluster_id, profile=attempt.profile) for cluster_id in started),
            *(
                Compute(compute_id=entry.cluster_id, profile=entry.profile, was_there=True)
                for entry in claimed
                if entry.cluster_id not in started and self._api.step_named(entry.cluster_id, attempt.name) is not None
            ),
        ]

    def observe(self, attempt: AttemptEntry) -> JobStatus:
        """Return how the cluster and the step are now."""
        view = self._api.observe(str(attempt.compute_id), attempt.name)
        return job_status(
            view,
            is_own_cluster=self._existing_cluster_id is None,
            was_there=view.name != attempt.name,
            ready_at=attempt.ready_at,
            now=self._clock(),
        )

    def end(self, attempt: AttemptEntry) -> None:
        """Terminate the cluster; where it is not ours, or not ours any more, cancel the step alone.

        A step that is cancelled may leave its Spark application on the cluster: nobody else gets that.
        """
        cluster_id = str(attempt.compute_id)
        if self._existing_cluster_id is None and self._sharing.hold(
            attempt, self._api.observe(cluster_id, attempt.name)
        ):
            self._api.terminate(cluster_id)
        elif (step_id := attempt.job_id or self._api.step_named(cluster_id, attempt.name)) is not None:
            self._api.cancel_step(cluster_id, step_id)

    def release(self, attempt: AttemptEntry, demand: Demand) -> bool:
        """Offer the cluster to the next step where there is demand, else terminate it."""
        if self._existing_cluster_id is not None:
            return True
        return self._sharing.release(attempt, demand)

    def set_owner(self, attempt: AttemptEntry, run_id: str) -> None:
        """Tag a cluster of ours with the run."""
        if self._existing_cluster_id is None:
            self._api.tag(str(attempt.compute_id), {TAG_RUN_ID: run_id})

    def log_tail(self, attempt: AttemptEntry, status: JobStatus) -> LogTail:
        """Return the last lines of the step's or the bootstrap actions' logs."""
        logs, ended_at = open_storage(str(status.log_uri)), status.ended_at
        try:
            if status.lost_by is AttemptOutcome.BOOTSTRAP:
                ended_at = None  # The step's, which never ran: these logs were whole before.
                keys = bootstrap_log_keys(logs, str(attempt.compute_id))
            else:
                keys = step_log_keys(str(attempt.compute_id), attempt.job_id)
            copies = {key: copy for key in keys if (copy := last_copy(logs, key)) is not None}
        except StorageError:
            copies = {}
        lines = tuple(line for copy in copies.values() for line in copy.tail)
        is_there = any(key.endswith("/stderr.gz") for key in copies)
        is_whole = all(copy.is_made_since(ended_at) for copy in copies.values())
        return LogTail(lines=lines, is_complete=is_there and is_whole)

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

    @property
    def _existing(self) -> Compute:
        return Compute(compute_id=str(self._existing_cluster_id), profile=EXISTING, was_there=True)

    @cached_property
    def _digest(self) -> str:
        return cluster_digest(self._template, bundle_uri=self._bundle_uri, region=self._api.region)

    def _step(self, attempt: AttemptEntry, job: JobRequest, profile: ProfileTemplate | None) -> dict[str, Any]:
        return step_request(
            self._template,
            profile,
            job.step,
            name=attempt.name,
            pipes=job.pipes,
            conf=self._conf,
            region=self._api.region,
            encryption=encryption(),
        )

    def _is_added(self, entry: PoolEntry, attempt: AttemptEntry, job: JobRequest) -> bool:
        """Add the step to a cluster that was claimed; return False where that takes none any more."""
        step = self._step(attempt, job, self._template.profile(entry.profile))
        try:
            if self._api.step_named(entry.cluster_id, attempt.name) is None:
                # First the tags: `cdi clusters` goes by them.
                self._api.tag(entry.cluster_id, tags_of(job.step, job.run_id))
                self._api.add_step(entry.cluster_id, step)
        except RefusedError:
            self._pool.forget(entry.cluster_id)
            return False
        except UnreachableError as error:
            # Nothing was sent. Whether an earlier request was accepted is looked up before the next.
            raise ThrottledError(str(error)) from error
        return True
