"""The processes of this machine, as /proc has them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process at the moment it was looked at.

    Attributes:
        command: its command line, the arguments separated by spaces.
    """

    pid: int
    parent: int
    session: int
    command: str


def processes() -> Iterator[Process]:
    """Yield every process there is."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
            except OSError:
                continue
            yield Process(pid=int(entry.name), parent=int(fields[1]), session=int(fields[3]), command=command)


def descendants_of(pid: int) -> list[Process]:
    """Return what a process has started, and what that has started, and so on."""
    below, found = {pid}, list[Process]()
    rest = list(processes())
    while new := [process for process in rest if process.parent in below and process.pid not in below]:
        found += new
        below |= {process.pid for process in new}
    return found
