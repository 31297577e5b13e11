"""Spark's Python workers as processes, and the files of a job that is not over: what tests kill, limit, look for."""

import os
from collections.abc import Iterator
from pathlib import Path

from cdi_dagster_tests.spark.ingest_support import SampleDay


def processes() -> Iterator[tuple[int, int, int, str]]:
    """Yield pid, parent, session and command line of every process there is."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            yield int(entry.name), int(fields[1]), int(fields[3]), command


def python_daemons() -> list[int]:
    """The processes of this test process's own Spark that fork its workers."""
    parents = {pid: parent for pid, parent, _, _ in processes()}

    def ours(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    found = {pid for pid, _, _, command in processes() if "pyspark.daemon" in command and ours(pid)}
    return [pid for pid in found if parents.get(pid) not in found]


def python_workers() -> list[int]:
    """What the daemons forked."""
    daemons = python_daemons()
    return [pid for pid, parent, _, _ in processes() if parent in daemons]


def staged_files(day: SampleDay) -> list[str]:
    staging = Path(day.published.root.removeprefix("file://")) / ".cdi-staging"
    return [str(path) for path in staging.rglob("*") if path.is_file() and "locks" not in path.parts]
