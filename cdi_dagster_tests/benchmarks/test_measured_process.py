"""The meter counts every process of a command, those too that the kernel puts on nobody's account."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks.measured_process import MeasuredProcessError, run_measured

# Burns CPU in: itself, a child that it waits for, a child of a daemon that ignores SIGCHLD (as Spark's does), and an
# orphan that outlives it.
PROGRAM = """
import os, signal, sys, time

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

def forked(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid

def daemon():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    forked(lambda: (burn(0.4), time.sleep(2)))
    time.sleep(3.5)

burn(0.2)
waited_for = [forked(lambda: burn(0.3)), forked(daemon)]
for pid in waited_for:
    os.waitpid(pid, 0)
print("Reading", flush=True)
time.sleep(1)
forked(lambda: (time.sleep(0.3), burn(0.5)))
"""


def measured(program: str, folder: Path):
    return run_measured([sys.executable, "-c", program], environment=os.environ, work_folder=folder)


def test_cpu_of_every_process_counts(tmp_path: Path) -> None:
    found = measured(PROGRAM, tmp_path)
    assert 1.3 < found.cpu_seconds < 2.5
    assert 0.15 < found.own_cpu_seconds < 0.6
    assert found.wall_seconds > 4.5
    assert 4_000_000 < found.largest_process_bytes < 200_000_000
    # It reads after 3.5 seconds, one before the end; who logs that may have waked later.
    assert abs(found.seconds_since("Reading")) < found.wall_seconds - 3


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(MeasuredProcessError, match="exit code 3; its log ends:\nout of luck"):
        measured("import sys; print('out of luck'); sys.exit(3)", tmp_path)
