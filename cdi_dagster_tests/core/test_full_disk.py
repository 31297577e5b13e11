"""A full disk has a class of its own, however it is reported."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cdi_dagster.core.failures import FailureClass
from cdi_dagster.core.full_disk import is_full, reports_full
from cdi_dagster.ingestion.status_rows import failure_of
from cdi_dagster.spark.ingest.task import task_failure
from cdi_dagster.spark.job_failures import failure_of as failure_of_job
from cdi_dagster.storage import storage_failure
from cdi_dagster.storage.file_system import storage_error
from cdi_dagster_tests.waiting import PATIENCE_SECONDS


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/disk/file")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_or_quota_is_storage_full_from_storage_step_task_and_job(number: int) -> None:
    error = os_error(number)
    failures = [
        storage_failure(storage_error(error, "write", "file:///disk/file", Path("/"))),
        failure_of(error, "ingest_daily"),
        task_failure(error),
        failure_of_job(error),
    ]
    assert {failure.failure_class for failure in failures} == {FailureClass.STORAGE_FULL}
    assert all("run the day again" in failure.next_step for failure in failures)


@pytest.mark.parametrize(
    ("doing", "expected"), [("write", FailureClass.STORAGE_FULL), ("list", FailureClass.JOB_FAILED)]
)
def test_a_root_that_is_not_writable_is_storage_full_and_one_that_is_not_readable_is_not(
    doing: str, expected: FailureClass
) -> None:
    error = storage_error(os_error(errno.EACCES), doing, "file:///disk/file", Path("/"))
    assert storage_failure(error).failure_class is expected


def test_the_cause_of_an_error_counts_too() -> None:
    spilling = RuntimeError("spilling failed")
    spilling.__cause__ = os_error(errno.ENOSPC)
    assert is_full(spilling)
    assert not is_full(RuntimeError("another"))
    assert not is_full(os_error(errno.EIO))


def test_what_java_and_shells_write_of_it_is_recognised() -> None:
    assert reports_full("java.io.IOException: No space left on device")
    assert reports_full("write error: Disk quota exceeded")
    assert not reports_full("java.io.IOException: Broken pipe")


def test_a_command_whose_output_does_not_fit_ends_with_the_class(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    command = [sys.executable, "-m", "cdi_dagster.cli", "status", "--json", "--days", "1"]
    with full.open("w") as output:
        ended = subprocess.run(
            command,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "CDI_HOME": str(tmp_path)},
            check=False,
            timeout=PATIENCE_SECONDS,
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("STORAGE_FULL: A disk is full: that of the output.")
    assert "Traceback" not in ended.stderr
