"""The coalescer's state in AWS Batch: queries Batch; `coalescer_status.batch_jobs` decides.

Batch keeps ended jobs for about a week. So each completion that is seen is kept below the published root, and days
that Batch has forgotten are judged by it and by their objects (`batch_proof`). The jobs are cached for a short time
for every collection and day, so that a sensor tick costs a bounded number of calls.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from cdi_dagster.clock import utc_now
from cdi_dagster.coalescer_status.batch_jobs import (
    BATCH_REMEMBERS,
    ENDED_STATUSES,
    LIVE_STATUSES,
    QUEUES,
    BatchJob,
    batch_coalescer_status,
)
from cdi_dagster.coalescer_status.batch_proof import CompletionProof, forgotten_day_status
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.days import day_ends_at
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.listing import listing_fingerprint
from cdi_dagster.core.storage_keys import completion_proof_key
from cdi_dagster.storage import ObjectMissingError, StorageError
from cdi_dagster.storage.roots import Roots

_log = logging.getLogger(__name__)
_DESCRIBE_JOBS_LIMIT = 100


class BatchCoalescerStatus:
    """Coalescer status from the jobs in AWS Batch's queues.

    Args:
        make_client: makes a boto3 Batch client; called at the first request, not before.
        roots: corporate storage is listed; the published root keeps the proofs of completion.
        queues: job queues to read.
        cache_seconds: how long the jobs are cached. Batch throttles list calls, and reading the jobs takes 14.
        clock: returns the time now, aware.
    """

    def __init__(
        self,
        make_client: Callable[[], Any],
        roots: Roots,
        *,
        queues: Sequence[str] = QUEUES,
        cache_seconds: float = 20,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._make_client = make_client
        self._roots = roots
        self._queues = tuple(queues)
        self._cache_for = timedelta(seconds=cache_seconds)
        self._clock = clock
        self._client: Any = None
        self._lock = threading.Lock()
        self._fetched_at: datetime | None = None
        self._jobs: tuple[BatchJob, ...] = ()
        self._ended: dict[str, BatchJob] = {}
        self._proven: dict[CollectionDay, datetime] = {}

    def status(self, day: CollectionDay) -> CoalescerStatus:
        """Return the state of the collection's group for a storage day; a failed request is UNKNOWN with its error."""
        try:
            jobs = self._cached_jobs()
        except (BotoCoreError, ClientError) as error:
            return CoalescerStatus(
                state=CoalescerState.UNKNOWN,
                reason=f"could not query AWS Batch for queues {', '.join(self._queues)}: {_error_text(error)}. "
                "Check the batch:ListJobs and batch:DescribeJobs permissions, the region and the network.",
            )
        now = self._clock()
        status = batch_coalescer_status(day.collection.group, day.storage_day, jobs, now=now)
        if status.is_open and status.completed_at:
            self._keep_proof(day, status.completed_at)
        elif status.state is CoalescerState.NOT_STARTED and now - day_ends_at(day.storage_day) > BATCH_REMEMBERS:
            return self._forgotten(day, now)
        return status

    def _keep_proof(self, day: CollectionDay, completed_at: datetime) -> None:
        """Keep the completion, once; a failure is logged, and the next request of the status tries again."""
        if self._proven.get(day) == completed_at:
            return
        try:
            kept = self._proof(day)
            if kept is None or kept.completed_at < completed_at:
                fingerprint = listing_fingerprint(self._roots.corporate.list(day.corporate_prefix))
                proof = CompletionProof(completed_at=completed_at, fingerprint=fingerprint)
                self._roots.published.write(completion_proof_key(day), proof.to_bytes())
        except StorageError as error:
            _log.warning("the completion of %s is not kept yet, for when AWS Batch forgets its jobs: %s", day, error)
        else:
            self._proven[day] = completed_at

    def _forgotten(self, day: CollectionDay, now: datetime) -> CoalescerStatus:
        try:
            listing = self._roots.corporate.list(day.corporate_prefix)
            return forgotten_day_status(day.storage_day, self._proof(day), listing, now=now)
        except StorageError as error:
            return CoalescerStatus(
                state=CoalescerState.UNKNOWN,
                reason=f"AWS Batch has forgotten the jobs of {day.storage_day}, and what is kept of them, or the day "
                f"itself, could not be read: {error}",
            )

    def _proof(self, day: CollectionDay) -> CompletionProof | None:
        try:
            return CompletionProof.from_bytes(self._roots.published.read(completion_proof_key(day)))
        except ObjectMissingError:
            return None

    def _cached_jobs(self) -> tuple[BatchJob, ...]:
        with self._lock:
            now = self._clock()
            if self._fetched_at is None or not timedelta() <= now - self._fetched_at < self._cache_for:
                if self._client is None:
                    self._client = self._make_client()
                self._jobs = tuple(self._fetch())
                self._fetched_at = now
            return self._jobs

    def _fetch(self) -> Iterator[BatchJob]:
        # Live statuses first: a job that ends meanwhile is then seen twice, never missed.
        listed = {
            job_id: None
            for status in (*LIVE_STATUSES, *ENDED_STATUSES)
            for queue in self._queues
            for job_id in self._list(queue, status)
        }
        self._ended = {job_id: job for job_id, job in self._ended.items() if job_id in listed}
        yield from self._ended.values()
        unknown = [job_id for job_id in listed if job_id not in self._ended]
        for start in range(0, len(unknown), _DESCRIBE_JOBS_LIMIT):
            for described in self._client.describe_jobs(jobs=unknown[start : start + _DESCRIBE_JOBS_LIMIT])["jobs"]:
                job = _job(described)
                if job.status == "FAILED" and job.children:
                    job = replace(job, failed_children=tuple(self._failed_children(job.job_id)))
                if not job.is_live:
                    self._ended[job.job_id] = job
                yield job

    def _list(self, queue: str, status: str) -> Iterator[str]:
        for page in self._pages(jobQueue=queue, jobStatus=status):
            # Where a child of an array is listed (its id is the array's, a colon and its index), the array is meant.
            yield from (summary["jobId"].partition(":")[0] for summary in page["jobSummaryList"])

    def _failed_children(self, array_job_id: str) -> Iterator[int]:
        for page in self._pages(arrayJobId=array_job_id, jobStatus="FAILED"):
            yield from (int(summary["jobId"].rpartition(":")[2]) for summary in page["jobSummaryList"])

    def _pages(self, **what: str) -> Any:
        return self._client.get_paginator("list_jobs").paginate(**what)


def _job(described: Mapping[str, Any]) -> BatchJob:
    return BatchJob(
        job_id=described["jobId"],
        name=described["jobName"],
        status=described["status"],
        created_at=_moment(described["createdAt"]),
        started_at=_moment(described["startedAt"]) if described.get("startedAt") else None,
        stopped_at=_moment(described["stoppedAt"]) if described.get("stoppedAt") else None,
        parameters=dict(described.get("parameters") or {}),
        status_reason=described.get("statusReason"),
        children=dict((described.get("arrayProperties") or {}).get("statusSummary") or {}),
    )


def _moment(milliseconds: float) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)


def _error_text(error: Exception) -> str:
    if isinstance(error, ClientError):
        return f"{error.response['Error'].get('Code', 'error')} from {error.operation_name}"
    return str(error)
