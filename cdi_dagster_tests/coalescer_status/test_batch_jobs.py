"""The coalescer's state from AWS Batch's jobs, as a truth table."""

from datetime import UTC, date, datetime, timedelta

import pytest

from cdi_dagster.coalescer_status.batch_jobs import (
    LIVE_STATUSES,
    MAIN_PARTITIONS,
    BatchJob,
    batch_coalescer_status,
    storage_day_of_job,
)
from cdi_dagster.core.collections import StorageGroup
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus

DAY = date(2023, 3, 26)
NIGHT = datetime(2023, 3, 27, 1, 0, tzinfo=UTC)
NOW = datetime(2023, 3, 27, 9, 30, tzinfo=UTC)


def job(
    name: str = "run_coalescer_batch_storage_audit",
    status: str = "SUCCEEDED",
    *,
    created_at: datetime = NIGHT,
    partition: str | None = "-1",
    date_to_add: str | None = "yesterday",
    s3_prefix: str = "corporate_storage/ucfs_audit",
    job_id: str | None = None,
    children: dict[str, int] | None = None,
    failed_children: tuple[int, ...] = (),
) -> BatchJob:
    parameters = {"s3-prefix": s3_prefix, "partition": partition, "date-to-add": date_to_add}
    return BatchJob(
        job_id=job_id or f"{name}-{created_at:%d%H%M}-{status}",
        name=name,
        status=status,
        created_at=created_at,
        started_at=created_at if status not in ("SUBMITTED", "PENDING", "RUNNABLE") else None,
        stopped_at=created_at + timedelta(minutes=11) if status in ("SUCCEEDED", "FAILED") else None,
        parameters={key: value for key, value in parameters.items() if value is not None},
        status_reason="Essential container in task exited" if status == "FAILED" else None,
        children=children or {},
        failed_children=failed_children,
    )


def main_jobs(*partitions: int, status: str = "SUCCEEDED") -> list[BatchJob]:
    return [
        job(
            f"run_coalescer_batch_storage_main_partition_{n}",
            status,
            partition=str(n),
            s3_prefix="corporate_storage/ucfs_main",
        )
        for n in partitions
    ]


def status(jobs: list[BatchJob], group: StorageGroup = StorageGroup.AUDIT) -> CoalescerStatus:
    return batch_coalescer_status(group, DAY, jobs, now=NOW)


LATER = NIGHT + timedelta(hours=2)
ALL = range(MAIN_PARTITIONS)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], CoalescerState.NOT_STARTED),
        ([job()], CoalescerState.COMPLETE),
        ([job("run_coalescer_batch_storage_audit_sunday")], CoalescerState.COMPLETE),
        ([job(status="FAILED")], CoalescerState.FAILED),
        ([job(status="FAILED"), job(created_at=LATER)], CoalescerState.COMPLETE),
        ([job(), job(status="FAILED", created_at=LATER)], CoalescerState.FAILED),
        ([job(created_at=NIGHT - timedelta(days=1))], CoalescerState.NOT_STARTED),
        ([job(date_to_add="2023-03-26", created_at=LATER + timedelta(days=3))], CoalescerState.COMPLETE),
        ([job(date_to_add="2023/03/26", created_at=LATER + timedelta(days=3))], CoalescerState.COMPLETE),
        # A day that does not exist: the job works on none that is known, and the others count as before.
        ([job(), job(s3_prefix="corporate_storage/ucfs_audit/2023/02/30/", created_at=LATER)], CoalescerState.COMPLETE),
        ([job(s3_prefix="corporate_storage/ucfs_audit/2023/02/30/", status="RUNNING")], CoalescerState.RUNNING),
        ([job(date_to_add="2023-03-25")], CoalescerState.NOT_STARTED),
        ([job(date_to_add="2023/03/25")], CoalescerState.NOT_STARTED),
        ([job(date_to_add="NOT_SET")], CoalescerState.NOT_STARTED),
        ([job(date_to_add="NOT_SET", s3_prefix="corporate_storage/ucfs_audit/2023/03/26")], CoalescerState.COMPLETE),
        ([job(), job(status="RUNNING", date_to_add="2023-01-01", created_at=LATER)], CoalescerState.RUNNING),
        ([job(), job("started by hand", status="RUNNING", created_at=LATER)], CoalescerState.RUNNING),
        ([job("run_coalescer_batch_storage_equalities", s3_prefix="x/ucfs_equalities")], CoalescerState.NOT_STARTED),
        ([job(), job(status="A_STATUS_OF_TOMORROW", created_at=LATER)], CoalescerState.RUNNING),
        *([([job(), job(status=live, created_at=LATER)], CoalescerState.RUNNING) for live in LIVE_STATUSES]),
    ],
)
def test_the_jobs_of_a_single_job_group(jobs: list[BatchJob], expected: CoalescerState) -> None:
    result = status(jobs)
    assert result.state is expected
    assert str(DAY) in result.reason


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        (main_jobs(*ALL), CoalescerState.COMPLETE),
        (main_jobs(*ALL[:-1]), CoalescerState.RUNNING),
        (main_jobs(*ALL[:-1]) + main_jobs(19, status="RUNNING"), CoalescerState.RUNNING),
        (main_jobs(*ALL[:-1]) + main_jobs(19, status="FAILED"), CoalescerState.FAILED),
        (
            main_jobs(*ALL, status="FAILED")
            + [
                job(
                    "run_coalescer_batch_storage_main_sunday",
                    created_at=LATER,
                    s3_prefix="corporate_storage/ucfs_main",
                )
            ],
            CoalescerState.COMPLETE,
        ),
    ],
    ids=["all", "one missing", "one running", "one failed", "one job for all, later"],
)
def test_main_is_complete_only_when_all_its_jobs_have_succeeded(jobs: list[BatchJob], expected: CoalescerState) -> None:
    assert status(jobs, StorageGroup.MAIN).state is expected


def test_complete_names_the_end_of_the_last_job() -> None:
    result = status([job(), job(created_at=LATER)])
    assert result.completed_at == LATER + timedelta(minutes=11)


def test_a_running_job_is_named_with_its_time_so_far() -> None:
    reason = status([job(status="RUNNING", created_at=NOW - timedelta(minutes=102))]).reason
    assert "1 h 42 min so far" in reason
    assert "run_coalescer_batch_storage_audit" in reason


@pytest.mark.parametrize(
    ("created_at", "date_to_add", "expected"),
    [
        (datetime(2023, 3, 27, 0, 0, tzinfo=UTC), "yesterday", DAY),
        (datetime(2023, 3, 26, 23, 59, 59, tzinfo=UTC), "yesterday", DAY - timedelta(days=1)),
        (datetime(2024, 3, 1, 2, 30, tzinfo=UTC), "yesterday", date(2024, 2, 29)),
        (datetime(2023, 3, 26, 23, 0, tzinfo=UTC), "today", DAY),
        (datetime(2023, 3, 27, 2, 0, tzinfo=UTC), "nonsense", None),
    ],
)
def test_the_day_of_a_job_is_relative_to_when_it_ran(
    created_at: datetime, date_to_add: str, expected: date | None
) -> None:
    assert storage_day_of_job(job(created_at=created_at, date_to_add=date_to_add)) == expected


@pytest.mark.parametrize(
    ("array", "expected", "reason"),
    [
        (
            job(status="PENDING", children={"SUCCEEDED": 5, "FAILED": 1, "RUNNABLE": 2, "RUNNING": 8}),
            CoalescerState.RUNNING,
            "is PENDING, 8 h 30 min so far, 5 of 16 shards done, 1 failed",
        ),
        # The parent has ended, a child may still delete: nothing starts beside it.
        (job(status="FAILED", children={"FAILED": 15, "RUNNING": 1}), CoalescerState.RUNNING, "is FAILED"),
        (job(status="SUCCEEDED", children={"SUCCEEDED": 16}), CoalescerState.COMPLETE, "1 AWS Batch job succeeded"),
        (
            job(status="FAILED", children={"SUCCEEDED": 14, "FAILED": 2}, failed_children=(3, 7)),
            CoalescerState.FAILED,
            "-FAILED, shards 3/16, 7/16): Essential container",
        ),
        (
            job(status="FAILED", children={"FAILED": 8}, failed_children=tuple(range(8))),
            CoalescerState.FAILED,
            "shards 0/8, 1/8, 2/8, 3/8, 4/8 and 3 more)",
        ),
    ],
)
def test_an_array_is_done_when_all_its_children_are_and_names_those_that_failed(
    array: BatchJob, expected: CoalescerState, reason: str
) -> None:
    result = status([array])
    assert result.state is expected
    assert reason in result.reason
