"""The processes of this machine, as /proc has them."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process at the moment it was looked at.

    Attributes:
        command: its command line, the arguments separated by spaces.
        program: the name of its program, without the folder.
        arguments: separated by spaces.
    """

    pid: int
    parent: int
    session: int
    command: str
    program: str
    arguments: str


def processes() -> Iterator[Process]:
    """Yield every process there is."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (process := _process(int(entry.name))):
            yield process


def descendants_of(pid: int) -> list[Process]:
    """Return what a process has started, and what that has started, and so on."""
    found = list[Process]()
    for child in _children_of(pid):
        if process := _process(child):
            found += [process, *descendants_of(child)]
    return found


def kill_session(session: int) -> None:
    """Kill every process of a session with SIGKILL: the JVM, Spark's Python daemon, its workers."""
    for process in processes():
        if process.session == session:
            with suppress(ProcessLookupError):  # without the others it has ended by itself
                os.kill(process.pid, signal.SIGKILL)


def _process(pid: int) -> Process | None:
    folder = f"/proc/{pid}"
    try:
        with open(f"{folder}/stat") as stat, open(f"{folder}/cmdline", errors="replace") as cmdline:
            fields = stat.read().rpartition(")")[2].split()
            program, _, arguments = cmdline.read().partition("\0")
    except OSError:
        return None
    # A browser writes its command line anew, without the zeros.
    program, dashes, more = program.partition(" --")
    arguments = f"{dashes}{more} {arguments}".replace("\0", " ").strip()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        command=f"{program} {arguments}",
        program=os.path.basename(program),
        arguments=arguments,
    )


def _children_of(pid: int) -> set[int]:
    """Return a process's children as the kernel lists them: to look at every process costs a hundred times as much."""
    found = set[int]()
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children") as children:
                found |= {int(child) for child in children.read().split()}
        except OSError:
            continue  # that thread, or the process, has ended
    return found


def write_program(path: Path, program: str) -> None:
    """Write an executable that runs a Python program with this Python; in a `#!` line its path could hold no space."""
    source = path.with_name(f"{path.name}.py")
    source.write_text(program)
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(source))} "$@"\n')
    path.chmod(0o755)
