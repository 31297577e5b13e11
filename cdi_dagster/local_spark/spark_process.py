"""Runs one Spark job on this machine: `spark-submit` of the installed pyspark as a child process.

Streams its log, ends the whole process tree whatever happens to us, and finds why it failed. No dagster: the local step
launcher and `cdi ingest` both use this.
"""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.full_disk import is_full, reports_full, storage_full
from cdi_dagster.core.log_lines import last_lines, scrub
from cdi_dagster.core.spark_jobs import SparkJob
from cdi_dagster.local_spark import process_guard
from cdi_dagster.local_spark.java import find_java
from cdi_dagster.local_spark.spark_submit import (
    SparkProcessConfig,
    launch_failed,
    s3a_jars,
    scratch_conf,
    spark_environment,
    spark_submit_command,
)

_TAIL_LINES = 200
_OUT_OF_MEMORY = re.compile(r"OutOfMemoryError|Cannot allocate memory|\bMemoryError\b|Container killed .* memory")
_STACK_FRAME = re.compile(r"\s+at |\s*\.\.\. \d+ more")
_WITHOUT_JVM = (FailureClass.JOB_FAILED, FailureClass.CLUSTER_LOST)
_SPARK_EXIT_OUT_OF_MEMORY = 52  # org.apache.spark.util.SparkExitCode.OOM


@dataclass(frozen=True, kw_only=True)
class SparkExit:
    """How a Spark process ended.

    Attributes:
        exit_code: of the process; 128 + signal, or minus the signal, where a signal ended it.
        log_tail: its last lines, unscrubbed (scrub them before showing them).
        log_path: the whole log.
        seconds: wall clock from start to end.
    """

    exit_code: int
    log_tail: tuple[str, ...]
    log_path: Path
    seconds: float


def run_spark_step(
    job: SparkJob,
    arguments: Sequence[str],
    *,
    config: SparkProcessConfig,
    correlation_id: str,
    on_line: Callable[[str], None] = lambda line: None,
    on_poll: Callable[[], None] = lambda: None,
    poll_seconds: float = 0.5,
) -> SparkExit:
    """Run a job to its end.

    However this function ends (an exception, an interrupt, a kill of this process), the whole process tree ends.

    Args:
        job: what to run.
        arguments: its command line.
        config: how Spark runs here.
        correlation_id: of the run; names the log folder.
        on_line: called with every log line, in a separate thread.
        on_poll: called in the calling thread about every `poll_seconds`, and once after the end.
        poll_seconds: how often to poll.

    Raises:
        CdiError: LAUNCH_FAILED where Java, pyspark or the job is missing. Nothing was started.
    """
    command = spark_submit_command(job, arguments, config=config)
    environment = spark_environment(find_java().path, s3a_jars(job, arguments, config=config))
    folder = config.work_folder / correlation_id
    scratch = _scratch_folder(folder, job)
    command[1:1] = [part for name, value in scratch_conf(scratch).items() for part in ("--conf", f"{name}={value}")]
    log_path = folder / f"{job.name}.log"
    started = time.monotonic()
    try:
        exit_code, tail = _run_guarded(
            command,
            environment,
            scratch=scratch,
            log_path=log_path,
            grace_seconds=config.grace_seconds,
            on_line=on_line,
            on_poll=on_poll,
            poll_seconds=poll_seconds,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return SparkExit(exit_code=exit_code, log_tail=tail, log_path=log_path, seconds=time.monotonic() - started)


def _scratch_folder(folder: Path, job: SparkJob) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Path(tempfile.mkdtemp(prefix=f"{job.name}-", dir=folder))
    except OSError as error:
        if is_full(error):
            raise storage_full(f"The work folder {folder} cannot be written: {error.strerror}.") from error
        raise launch_failed(
            f"The work folder {folder} cannot be written: {error.strerror}.",
            "Free space or give permission there, or set CDI_HOME to another folder.",
        ) from error


def spark_failure(
    exit_code: int,
    log_tail: Sequence[str],
    report: Mapping[str, Any] | None,
    failure: Mapping[str, Any] | None,
) -> CdiError | None:
    """Return the failure of a finished Spark process; None is success.

    Success is exit code 0 *and* the job's own closing report *and* no failure reported. The job's own failure takes
    precedence over the exit code, unless it is JOB_FAILED or CLUSTER_LOST and the JVM was ended: the Python driver
    outlives its JVM by a moment, and all that it can report is that nobody answers it any more.
    """
    reported = CdiError.from_json(failure) if failure is not None else None
    if exit_code == 0:
        if reported is not None or report is not None:
            return reported
        return CdiError(
            FailureClass.JOB_FAILED,
            "Spark ended with exit code 0, but its closing report never arrived, so nothing proves what it did.",
            detail={"exit_code": exit_code},
        )
    detail = {"exit_code": exit_code, "last_log_lines": last_lines(log_tail)}
    ended = _ended_jvm(exit_code, log_tail, detail)
    if reported is not None:
        return ended if ended and reported.failure_class in _WITHOUT_JVM else reported
    cause = f"Spark ended with exit code {exit_code}: {_last_message(log_tail) or 'it left no log'}"
    return ended or CdiError(FailureClass.JOB_FAILED, cause, detail=detail)


def _ended_jvm(exit_code: int, log_tail: Sequence[str], detail: Mapping[str, Any]) -> CdiError | None:
    """Return the failure of a JVM that memory, a full disk or a signal ended (the exit code is not 0), or None."""
    if exit_code == _SPARK_EXIT_OUT_OF_MEMORY or any(_OUT_OF_MEMORY.search(line) for line in log_tail):
        return CdiError(
            FailureClass.OUT_OF_MEMORY,
            "Spark ran out of memory.",
            next_step="Raise CDI_SPARK_DRIVER_MEMORY, or use fewer cores (CDI_SPARK_MASTER=local[1,4]), and run again.",
            detail=detail,
        )
    full = next((line for line in log_tail if reports_full(line)), None)
    if full:
        return CdiError(FailureClass.STORAGE_FULL, f"A disk is full: {scrub(full)}", detail=detail)
    signal_name = _signal_name(exit_code)
    if signal_name is None:
        return None
    return CdiError(FailureClass.CLUSTER_LOST, f"{signal_name} ended the Spark process from outside.", detail=detail)


def _last_message(log_tail: Sequence[str]) -> str:
    """Return the last line that is neither empty nor a stack frame, scrubbed."""
    return next((scrub(line) for line in reversed(log_tail) if line.strip() and not _STACK_FRAME.match(line)), "")


def _signal_name(exit_code: int) -> str | None:
    number = -exit_code if exit_code < 0 else exit_code - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


def _run_guarded(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    scratch: Path,
    log_path: Path,
    grace_seconds: float,
    on_line: Callable[[str], None],
    on_poll: Callable[[], None],
    poll_seconds: float,
) -> tuple[int, tuple[str, ...]]:
    """Run a command under `process_guard` and return its exit code and last lines."""
    guard = [sys.executable, "-I", process_guard.__file__, "--grace-seconds", str(grace_seconds)]
    process = subprocess.Popen(  # noqa: S603
        [*guard, "--scratch", str(scratch), "--", *command],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    reader = _LogReader(process, log_path, on_line)
    reader.start()
    try:
        while process.poll() is None:
            try:
                process.wait(timeout=poll_seconds)
            except subprocess.TimeoutExpired:
                on_poll()
        reader.join()
        on_poll()
    finally:
        _end_guard(process, grace_seconds)
        reader.join(timeout=grace_seconds)
    return process.returncode, tuple(reader.tail)


def _end_guard(process: "subprocess.Popen[str]", grace_seconds: float) -> None:
    """Close the guard's standard input, so that it ends every process, and wait for it."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(timeout=grace_seconds + 10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _LogReader(threading.Thread):
    """Reads the log to its end: writes the log file, calls back, keeps the tail. Never stops reading early."""

    def __init__(self, process: "subprocess.Popen[str]", log_path: Path, on_line: Callable[[str], None]) -> None:
        super().__init__(name=f"log of process {process.pid}", daemon=True)
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._lines = process.stdout
        self._log_path = log_path
        self._on_line = on_line

    def run(self) -> None:
        assert self._lines is not None  # noqa: S101
        with self._log_path.open("a", encoding="utf-8") as log:
            for line in self._lines:
                self.tail.append(line.rstrip("\n"))
                self._on_line(line.rstrip("\n"))
                self._keep(log, line)

    def _keep(self, log: Any, line: str) -> None:
        try:
            log.write(line)
            log.flush()
        except OSError:
            # A full disk must not block Spark on a full pipe; the tail is still kept.
            return
