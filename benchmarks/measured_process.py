"""Runs one command and measures wall-clock time, the CPU time of all its processes and the memory of the largest.

Run as a script it is the meter: it adopts the processes that its command leaves behind, waits for them, and writes the
times of all. Standard library and Linux only. `run_measured` is for the other modules of the benchmark.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STRAGGLER_SECONDS = 30.0
_SAMPLE_INTERVAL_SECONDS = 0.1
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class MeasuredProcessError(Exception):
    """The command failed; the text holds the end of its log."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Time and CPU of one command.

    Attributes:
        wall_seconds: from its start to its end.
        cpu_seconds: user and system time of all its processes.
        own_cpu_seconds: of the first process: for spark-submit, the JVM.
        largest_process_bytes: the most memory that one of its processes had: for spark-submit, usually the JVM.
        log: its output, standard error included, as `(seconds since the start, line)`.
    """

    wall_seconds: float
    cpu_seconds: float
    own_cpu_seconds: float
    largest_process_bytes: int
    log: tuple[tuple[float, str], ...]

    def seconds_since(self, word: str) -> float:
        """Return the seconds from the first line that holds `word` to the end."""
        for at, line in self.log:
            if word in line:
                return self.wall_seconds - at
        raise MeasuredProcessError(f"The program never printed {word!r}; its log ends:\n{_tail(self.log)}")


def run_measured(command: Sequence[str], *, environment: Mapping[str, str], work_folder: Path) -> Measured:
    """Run a command to its end and measure it.

    Args:
        command: program and arguments.
        environment: all of its environment.
        work_folder: where the meter writes; the command's current folder.

    Raises:
        MeasuredProcessError: it failed.
    """
    result = work_folder / "measured.json"
    result.unlink(missing_ok=True)
    meter = subprocess.Popen(  # noqa: S603 - commands of this benchmark
        [sys.executable, "-I", __file__, str(result), *command],
        env=dict(environment),
        cwd=work_folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        assert meter.stdout is not None  # noqa: S101 - it is a pipe
        logged = [(time.monotonic(), line.rstrip("\n")) for line in meter.stdout]
        exit_code = meter.wait()
    finally:
        if meter.poll() is None:
            meter.terminate()
            meter.wait()
    if exit_code:
        raise MeasuredProcessError(f"It ended with exit code {exit_code}; its log ends:\n{_tail(logged)}")
    measured = json.loads(result.read_text())
    started = measured.pop("started")  # of the same clock: one for all processes
    return Measured(log=tuple((at - started, line) for at, line in logged), **measured)


def _tail(log: Sequence[tuple[float, str]]) -> str:
    return "\n".join(line for _, line in log[-15:])


def _meter(result: Path, command: Sequence[str]) -> int:
    """Run the command, write its times, return its exit code."""
    libc = ctypes.CDLL(None, use_errno=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # end everything when the benchmark is killed
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started = time.monotonic()
    child = subprocess.Popen(  # noqa: S603 - the measured command
        command, preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    )
    uncollected = _Uncollected(child.pid)
    try:
        end = os.pidfd_open(child.pid)
        while not select.select([end], [], [], _SAMPLE_INTERVAL_SECONDS)[0]:
            uncollected.sample()
        ended = time.monotonic()
        own_cpu_seconds = _cpu_seconds(child.pid)  # it is not collected yet
    finally:
        if child.poll() is None:
            child.terminate()
        exit_code = child.wait()
    stragglers = _wait_for_stragglers()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = {
        "started": started,
        "wall_seconds": ended - started,
        "cpu_seconds": used.ru_utime + used.ru_stime + uncollected.cpu_seconds(besides=stragglers),
        "own_cpu_seconds": own_cpu_seconds,
        "largest_process_bytes": used.ru_maxrss * 1024,
    }
    result.write_text(json.dumps(measured))
    return exit_code if exit_code >= 0 else 128 - exit_code


class _Uncollected:
    """The CPU of processes whose parent ignores SIGCHLD: the kernel then counts it for no parent.

    Spark's Python daemon does so, and its workers take most of the time. They are sampled while they live; the CPU
    after the last sample is lost, but workers are idle for longer than that before Spark ends them.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._ignoring: int | None = None
        self._seconds: dict[int, float] = {}

    def sample(self) -> None:
        """Record the CPU time of each so far."""
        if self._ignoring is None:
            self._ignoring = next(filter(_ignores_its_children, _processes_below(self._top)), None)
        if self._ignoring is not None:
            for pid in _children(self._ignoring):
                with contextlib.suppress(OSError):
                    self._seconds[pid] = _cpu_seconds(pid)

    def cpu_seconds(self, *, besides: set[int]) -> float:
        """Return the CPU time of all except those that were collected after all."""
        return sum(seconds for pid, seconds in self._seconds.items() if pid not in besides)


def _wait_for_stragglers() -> set[int]:
    """Collect every process the command left behind, so that its CPU counts, and return them."""
    found = set()
    deadline = time.monotonic() + _STRAGGLER_SECONDS
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid:
                found.add(pid)
            else:
                time.sleep(0.01)
        sys.exit(f"Processes of the command still run {_STRAGGLER_SECONDS:.0f} s after its end; their CPU is unknown.")
    return found


def _cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, without its children's; of an ended one too, until it is collected."""
    # "pid (name) state ...": utime and stime are fields 14 and 15, counted from 1.
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _processes_below(top: int) -> Iterator[int]:
    for pid in _children(top):
        yield pid
        yield from _processes_below(pid)


def _children(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):  # it ended meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    return found


def _ignores_its_children(pid: int) -> bool:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("SigIgn:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGCHLD - 1) & 1)
    return False


if __name__ == "__main__":
    sys.exit(_meter(Path(sys.argv[1]), sys.argv[2:]))
