"""The guard between us and Spark: a small program that runs one command and ends all its processes when we end.

Run as a script in its own session, standard library only. It watches its standard input: when the other end closes (we
stop, or are killed with -9) it ends every process below it, SIGTERM first, SIGKILL after the grace period, and removes
the scratch folder. Spark needs this: its Python daemon leaves the process group, so `killpg` misses it.
Started by `spark_process`, by `cli.servers`, and as the first process of the code location's container.
"""

import argparse
import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_WAIT_SECONDS = 5.0
_LIFELINE = 0


def main(argv: list[str]) -> int:
    """Run the command after `--` and return its exit code (128 + signal where a signal ended it)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grace-seconds", type=float, default=10.0)
    parser.add_argument("--scratch", type=Path, help="folder to remove when everything has ended")
    parser.add_argument(
        "--no-lifeline", action="store_true", help="end on SIGTERM alone: a container has no standard input"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args(argv)
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command

    wakeups, wakeup_end = os.pipe()
    os.set_blocking(wakeup_end, False)
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = _spawn(command)
    try:
        return _watch(child, [wakeups] if arguments.no_lifeline else [wakeups, _LIFELINE])
    finally:
        _end_everything_below(arguments.grace_seconds)
        if arguments.scratch:
            shutil.rmtree(arguments.scratch, ignore_errors=True)


_stop_requested = False


def _on_signal(number: int, _frame: object) -> None:
    global _stop_requested
    if number != signal.SIGCHLD:
        _stop_requested = True


def _spawn(command: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    # If this guard is killed too, the kernel still ends the command itself.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _LIFELINE)
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr, flush=True)
    os._exit(127)


def _watch(child: int, ends: list[int]) -> int:
    wakeups = ends[0]
    while True:
        status = _reap(child)
        if status is not None:
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        readable, _, _ = select.select(ends, [], [])
        if wakeups in readable:
            os.read(wakeups, 4096)
        if _stop_requested or (_LIFELINE in readable and not os.read(_LIFELINE, 4096)):
            return 128 + signal.SIGTERM


def _reap(child: int) -> int | None:
    """Collect every ended process below us; return the wait status of `child` if it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                found = status
    return found


def _end_everything_below(grace_seconds: float) -> None:
    for number, wait_seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, _KILL_WAIT_SECONDS)):
        deadline = time.monotonic() + wait_seconds
        signalled: set[int] = set()
        while below := _processes_below(os.getpid()):
            for pid in below - signalled:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            signalled |= below
            _reap(-1)
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return


def _processes_below(top: int) -> set[int]:
    children = defaultdict(set)
    for pid, parent in _process_table():
        children[parent].add(pid)
    found: set[int] = set()
    waiting = [top]
    while waiting:
        below = children.pop(waiting.pop(), set())
        found |= below
        waiting += below
    return found


def _process_table() -> list[tuple[int, int]]:
    """Return (pid, parent pid) of every live process: from /proc, or from `ps` where there is none (macOS)."""
    if not Path("/proc/self/stat").exists():
        with subprocess.Popen(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True) as listing:  # noqa: S607
            rows = [line.split() for line in (listing.stdout or ())]
        return [(int(pid), int(parent)) for pid, parent in rows if int(pid) != listing.pid]
    table = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # "pid (name) state ppid ...": the name may hold anything, so parse after its closing bracket.
                state, parent = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                if state != "Z":
                    table.append((int(entry.name), int(parent)))
    return table


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
