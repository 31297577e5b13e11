"""The coalescer's state from AWS Batch's jobs: the pure half of that status source.

Facts of the system in use: jobs are named `run_coalescer_batch_storage_<group>` (for `main` one job a partition,
`..._partition_<n>`; on Sundays with `_sunday` at the end, and then one job may do all partitions); the parameters
`s3-prefix`, `date-to-add` (`yesterday`, `today`, `YYYY-MM-DD`, `YYYY/MM/DD` or `NOT_SET`) and `partition` (`-1` is all
of them) state what a job works on. A job may be an array, whose children share its parameters: it is PENDING until
they have ended. `batch_status` queries Batch; `batch_proof` judges the days that it has forgotten.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from cdi_dagster.core.amounts import duration_text
from cdi_dagster.core.collections import StorageGroup
from cdi_dagster.core.days import storage_day_of
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus

QUEUES = ("batch_corporate_storage_coalescer", "batch_corporate_storage_coalescer_long_running")
"""The job queues of the system in use."""
LIVE_STATUSES = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
ENDED_STATUSES = ("SUCCEEDED", "FAILED")

BATCH_REMEMBERS = timedelta(days=7)
"""Ended jobs are listed for at least so long."""
MAIN_PARTITIONS = 20
"""`ucfs_main` is coalesced by this many jobs, one a partition."""

_NAME_OF_GROUP = {
    StorageGroup.AUDIT: "run_coalescer_batch_storage_audit",
    StorageGroup.EQUALITIES: "run_coalescer_batch_storage_equalities",
    StorageGroup.MAIN: "run_coalescer_batch_storage_main",
}
_PARTITION_IN_NAME = re.compile(r"_partition_(\d+)(?:_|$)")
_DAY_IN_PREFIX = re.compile(r"/(\d{4})/(\d{2})/(\d{2})(?:/|$)")
_ALL = -1
_SHARDS_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """One AWS Batch job, as ListJobs and DescribeJobs show it; times are aware, UTC.

    Attributes:
        job_id: Batch's id.
        name: job name.
        status: Batch's status, of `LIVE_STATUSES` or `ENDED_STATUSES`.
        created_at: when it was submitted.
        started_at: when its last attempt started, if it has.
        stopped_at: when it ended, if it has.
        parameters: of the job (`s3-prefix`, `date-to-add`, `partition`).
        status_reason: Batch's reason for a failure.
        children: of an array, how many children have each status.
        failed_children: of an array that failed, the indexes of the children that did.
    """

    job_id: str
    name: str
    status: str
    created_at: datetime
    started_at: datetime | None
    stopped_at: datetime | None
    parameters: Mapping[str, str]
    status_reason: str | None = None
    children: Mapping[str, int] = field(default_factory=dict)
    failed_children: tuple[int, ...] = ()

    @property
    def is_live(self) -> bool:
        """Whether it, or a child of it, may still change objects; an unknown status counts as live."""
        return self.status not in ENDED_STATUSES or any(
            count for status, count in self.children.items() if status not in ENDED_STATUSES
        )


def works_on_group(name: str, parameters: Mapping[str, str], group: StorageGroup) -> bool:
    """Whether a job merges objects of a storage group, by its name or, whatever its name, by its prefix."""
    named = _NAME_OF_GROUP[group]
    if name == named or name.startswith(f"{named}_"):
        return True
    return group in re.split(r"[/\s]", parameters.get("s3-prefix", ""))


def storage_day_of_job(job: BatchJob) -> date | None:
    """Return the storage day a job works on, or None where it names none (it may then change any day).

    `yesterday` and `today` are relative to when the job ran, which is not always when it was submitted.
    """
    in_prefix = _DAY_IN_PREFIX.search(job.parameters.get("s3-prefix", ""))
    if in_prefix:
        return _day("-".join(in_prefix.groups()))
    ran_on = (job.started_at or job.created_at).astimezone(UTC).date()
    match job.parameters.get("date-to-add", "NOT_SET"):
        case "yesterday":
            return storage_day_of(ran_on)
        case "today":
            return ran_on
        case text:
            return _day(text.replace("/", "-"))


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def batch_coalescer_status(
    group: StorageGroup, storage_day: date, jobs: Iterable[BatchJob], *, now: datetime
) -> CoalescerStatus:
    """Return the coalescer's state for a storage day from the jobs that Batch lists.

    Any live job of the group means RUNNING, whatever its day: it deletes under the same prefix. Otherwise the last
    job that covers a partition decides: all SUCCEEDED is COMPLETE, one FAILED is FAILED.
    """
    ours = [job for job in jobs if works_on_group(job.name, job.parameters, group)]
    live = sorted((job for job in ours if job.is_live), key=lambda job: job.created_at)
    if live:
        return CoalescerStatus(state=CoalescerState.RUNNING, reason=_running_reason(storage_day, live, now))
    of_day = [job for job in ours if storage_day_of_job(job) == storage_day]
    if not of_day:
        return CoalescerStatus(
            state=CoalescerState.NOT_STARTED,
            reason=f"no coalescer job of {group} for {storage_day} in AWS Batch ({len(ours)} jobs for other days)",
        )
    slots = range(MAIN_PARTITIONS) if group is StorageGroup.MAIN else (_ALL,)
    deciding = {slot: _last_covering(slot, of_day) for slot in slots}
    failed = sorted({job.name: job for job in deciding.values() if job and job.status == "FAILED"}.items())
    if failed:
        name, job = failed[0]
        others = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        return CoalescerStatus(
            state=CoalescerState.FAILED,
            reason=f"coalescer for {storage_day} failed: {name} (job {job.job_id}{_failed_shards(job)}){others}: "
            f"{job.status_reason or 'no reason given'}",
        )
    missing = [slot for slot, job in deciding.items() if job is None]
    if missing:
        return CoalescerStatus(
            state=CoalescerState.RUNNING,
            reason=f"coalescer for {storage_day} is not complete: {len(deciding) - len(missing)} of {len(deciding)} "
            f"jobs of {group} have succeeded; no job yet for partitions {', '.join(map(str, missing))}",
        )
    ended = [job.stopped_at for job in deciding.values() if job and job.stopped_at]
    completed_at = max(ended) if ended else None
    names = len({job.job_id for job in deciding.values() if job})
    return CoalescerStatus(
        state=CoalescerState.COMPLETE,
        reason=f"coalescer for {storage_day} complete: {names} AWS Batch job{'s' if names != 1 else ''} succeeded"
        + (f", the last at {completed_at:%Y-%m-%d %H:%M} UTC" if completed_at else ""),
        completed_at=completed_at,
    )


def _last_covering(slot: int, jobs: Iterable[BatchJob]) -> BatchJob | None:
    covering = [job for job in jobs if _partition_of(job) in (slot, _ALL)]
    return max(covering, key=lambda job: (job.created_at, job.job_id), default=None)


def _partition_of(job: BatchJob) -> int:
    parameter = job.parameters.get("partition")
    if parameter is not None and re.fullmatch(r"-?\d+", parameter):
        return int(parameter)
    in_name = _PARTITION_IN_NAME.search(job.name)
    return int(in_name[1]) if in_name else _ALL


def _running_reason(storage_day: date, live: list[BatchJob], now: datetime) -> str:
    oldest = live[0]
    others = f", and {len(live) - 1} more" if len(live) > 1 else ""
    day = storage_day_of_job(oldest)
    on = f" on {day}" if day and day != storage_day else ""
    return (
        f"coalescer for {storage_day} still running: {oldest.name} (job {oldest.job_id}) is {oldest.status}{on}, "
        f"{duration_text(now - (oldest.started_at or oldest.created_at))} so far{_shards_done(oldest)}{others}"
    )


def _shards_done(job: BatchJob) -> str:
    if not job.children:
        return ""
    failed = job.children.get("FAILED", 0)
    done = f", {job.children.get('SUCCEEDED', 0)} of {sum(job.children.values())} shards done"
    return done + (f", {failed} failed" if failed else "")


def _failed_shards(job: BatchJob) -> str:
    shards = [f"{index}/{sum(job.children.values())}" for index in job.failed_children]
    others = f" and {len(shards) - _SHARDS_NAMED} more" if len(shards) > _SHARDS_NAMED else ""
    return f", shard{'s' if len(shards) > 1 else ''} {', '.join(shards[:_SHARDS_NAMED])}{others}" if shards else ""
