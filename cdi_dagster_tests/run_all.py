"""All tests, a process for each package of them, several at a time: `python -m cdi_dagster_tests.run_all --help`.

A process for each package, because Spark, moto and Dagster keep state for the life of a process. That is why this is
not pytest-xdist: its workers run tests of any package. A file that takes minutes by itself has a process of its own, so
that no package is still at work when all others have ended. Options for every pytest go into PYTEST_ADDOPTS.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
LONGEST_FIRST = (
    *("emr/test_backfills.py", "gate/test_daemon.py", "emr/test_real_dagster.py", "gate/test_tables_alone.py"),
    *("s3a/test_end_to_end_on_emr.py", "s3a/test_publish_tables_on_s3.py", "spark", "emr", "gate", "cli"),
    *("emr/test_doctor_on_cluster.py", "gate/test_stopped_dagster.py", "published", "definitions", "s3a", "account"),
    *("leaks", "storage", "demo", "bundle", "test_suite", "coalescer"),
)
"""What takes half a minute or more: packages, and files with a process of their own. They start first; the order
changes how long it takes and nothing else."""

WAITING_WORKERS = 1
"""Workers beyond one for each core: those that start a Dagster daemon wait for most of their time."""
BYTES_OF_A_WORKER = 3 << 30
"""Memory that a package takes at most: Spark, Dagster and a browser."""

MEMORY_DISK = Path("/dev/shm")
NEEDED_BYTES = {"disk": 6 << 30, "memory": 12 << 30}
"""Free space of the disk in memory that tests get for their files, and memory that has to be available then."""

_NO_TESTS_SELECTED = 5
_COUNTED = re.compile(r"(\d+) (passed|failed|error|skipped)")
_CLOSING = re.compile(r"\d+ \w+.* in \d+\.\d+s\b|no tests ran in ")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A package of tests, or a file with a process of its own, whose process has ended.

    Attributes:
        package: the folder's name, or the file's path below the folder of all tests.
        exit_code: pytest's; a negative one is the signal that ended it.
        seconds: from start to end.
        cpu_seconds: of the process and of all that it started and waited for.
        output: what it printed.
    """

    package: str
    exit_code: int
    seconds: float
    cpu_seconds: float
    output: str

    @property
    def failed(self) -> bool:
        """Whether something failed in it."""
        return self.exit_code not in (0, _NO_TESTS_SELECTED)

    @property
    def summary(self) -> list[str]:
        """pytest's summary: a line for each test that was skipped or failed, and the closing line with the counts."""
        lines = self.output.rstrip().splitlines() or [f"no output, exit code {self.exit_code}"]
        end = max((n for n, line in enumerate(lines) if _CLOSING.match(line)), default=len(lines) - 1)
        start = max((n for n, line in enumerate(lines) if "short test summary info" in line), default=end - 1)
        return lines[start + 1 : end + 1]  # what a process prints that outlives pytest comes after it

    @property
    def counts(self) -> Counter[str]:
        """How many tests passed, failed and so on."""
        return Counter({word: int(number) for number, word in _COUNTED.findall(self.summary[-1])})


def packages_of_tests(folder: Path = TESTS, only: Sequence[str] = (), *, split: bool = True) -> list[str]:
    """Return the folders that hold tests and the files with a process of their own, the longest-running first.

    Args:
        folder: of all tests.
        only: return these alone, in this order; a folder brings its files that have a process of their own.
        split: whether those files are taken from their folders.
    """
    files = {str(path.relative_to(folder)) for path in folder.glob("*/**/test_*.py")}
    own = [name for name in LONGEST_FIRST if split and name in files]
    if only:
        return [unit for name in only for unit in (*(file for file in own if file.startswith(f"{name}/")), name)]
    found = {file.partition("/")[0] for file in files}.union(own)
    return [name for name in LONGEST_FIRST if name in found] + sorted(found.difference(LONGEST_FIRST))


def _pytest_command(package: str, packages: Sequence[str], options: Sequence[str], folder: Path) -> list[str]:
    own = [f"--ignore={folder.name}/{name}" for name in packages if name.startswith(f"{package}/")]
    return [sys.executable, "-m", "pytest", "-q", *options, *own, f"{folder.name}/{package}"]


def _environment(files: str) -> dict[str, str]:
    """Let Python keep what it compiled: a test run starts hundreds of processes that import the same modules."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "TMPDIR": files}


def memory_disk() -> Path | None:
    """Return where tests write without waiting for a disk; None where memory is short, or no program may start there.

    What is published is synchronised to the disk, and so is every row of Dagster's SQLite: tests of kills took four
    times as long on a disk.
    """
    try:
        available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
        if os.statvfs(MEMORY_DISK).f_flag & os.ST_NOEXEC or not available:
            return None
        found = {"disk": shutil.disk_usage(MEMORY_DISK).free, "memory": int(available[1]) << 10}
    except OSError:
        return None
    return MEMORY_DISK if all(found[name] >= needed for name, needed in NEEDED_BYTES.items()) else None


def usual_workers(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many packages run at a time: as many as there are cores and memory for.

    Of what this process may use: a container may have less of both than its machine.
    """
    cores = len(os.sched_getaffinity(0))
    quota, _, period = _limit(cgroup / "cpu.max").partition(" ")
    if quota.isdigit():
        cores = min(cores, max(1, int(quota) // int(period)))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _limit(cgroup / "memory.max")
    if limit.isdigit():
        memory = min(memory, int(limit))
    return max(1, min(cores + WAITING_WORKERS, memory // BYTES_OF_A_WORKER))


def _limit(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:  # no container, or one of another kind
        return "max"


def run_packages(packages: Sequence[str], options: Sequence[str], *, workers: int, folder: Path) -> Iterator[Ended]:
    """Run packages side by side and yield each when it ends; once interrupted, start no more and wait for the rest."""
    waiting, running = list(packages), dict[int, tuple[str, Path, float]]()

    def stop(signum: int, _frame: object) -> None:
        waiting.clear()
        for pid in running if signum == signal.SIGTERM else ():  # Ctrl-C reaches them by itself
            os.kill(pid, signal.SIGINT)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    with tempfile.TemporaryDirectory(prefix="cdi-tests-", dir=memory_disk()) as files:
        Path(files).chmod(0o711)  # a PostgreSQL that a test starts as another user has its folder there
        while waiting or running:
            while waiting and len(running) < workers:
                package = waiting.pop(0)
                log = Path(files) / package.replace("/", ".")
                command = _pytest_command(package, packages, options, folder)
                with log.open("wb") as output:
                    process = subprocess.Popen(
                        command, cwd=folder.parent, env=_environment(files), stdout=output, stderr=subprocess.STDOUT
                    )
                running[process.pid] = package, log, time.monotonic()
                print(f"   {package} starts", flush=True)
            pid, status, usage = os.wait4(-1, 0)
            package, log, began = running.pop(pid)
            yield Ended(
                package=package,
                exit_code=os.waitstatus_to_exitcode(status),
                seconds=time.monotonic() - began,
                cpu_seconds=usage.ru_utime + usage.ru_stime,
                output=log.read_text(errors="replace"),
            )


def main(arguments: Sequence[str], *, folder: Path = TESTS) -> int:
    """Run tests, print each package as it starts and ends, then what failed; return 1 unless all went well."""
    parser = argparse.ArgumentParser(prog="python -m cdi_dagster_tests.run_all", description=main.__doc__)
    parser.add_argument("packages", nargs="*", help="folders or files of tests (default: all)")
    parser.add_argument("-w", "--workers", type=int, default=usual_workers(), help="how many at a time (%(default)s)")
    parser.add_argument("-m", dest="markers", help="only tests with these markers, as pytest takes them")
    asked = parser.parse_args(arguments)
    # Of the files with a process of their own, markers mostly select none.
    packages = packages_of_tests(folder, asked.packages, split=not asked.markers)
    options = ["-m", asked.markers] if asked.markers else []

    began, done, counts = time.monotonic(), list[Ended](), Counter[str]()
    print(f"{len(packages)} packages of tests, {asked.workers} at a time", flush=True)
    for ended in run_packages(packages, options, workers=asked.workers, folder=folder):
        done.append(ended)
        counts += ended.counts
        print(
            f"== {ended.package}: {'FAILED' if ended.failed else 'ok'} in {ended.seconds:.0f} s"
            f" ({ended.cpu_seconds:.0f} s of CPU). So far {len(done)} of {len(packages)} packages,"
            f" {counts['passed']} passed, {counts['failed'] + counts['error']} failed,"
            f" {time.monotonic() - began:.0f} s",
            *ended.summary,
            sep="\n",
            flush=True,
        )
    failed = [ended for ended in done if ended.failed]
    for ended in failed:
        print(f"\n== {ended.package} failed with exit code {ended.exit_code}:\n{ended.output}", flush=True)
    print(f"== {counts['passed']} passed, {counts['failed'] + counts['error']} failed, {counts['skipped']} skipped")
    not_run = set(packages).difference(ended.package for ended in done)
    for what, names in (("Failed", [ended.package for ended in failed]), ("Not run", sorted(not_run))):
        if names:
            print(f"{what}: {' '.join(names)}", file=sys.stderr)
    return 1 if failed or not_run else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
