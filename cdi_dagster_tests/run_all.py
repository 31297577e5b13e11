"""All tests, a process for each package of them, several at a time: `python -m cdi_dagster_tests.run_all --help`.

A process for each package, because Spark, moto and Dagster keep state for the life of a process. That is why this is
not pytest-xdist: its workers run tests of any package. Options for every pytest go into PYTEST_ADDOPTS.
"""

import argparse
import os
import re
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
LONGEST_FIRST = ("spark", "emr", "gate", "definitions", "s3a", "leaks", "cli", "demo", "bundle", "local_spark")
"""Packages that take half a minute or more. They start first; the order changes how long it takes and nothing else."""

_NO_TESTS_SELECTED = 5
_COUNTED = re.compile(r"(\d+) (passed|failed|error|skipped)")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A package of tests whose process has ended.

    Attributes:
        package: the folder's name.
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
        start = max((n for n, line in enumerate(lines) if "short test summary info" in line), default=len(lines) - 2)
        return lines[start + 1 :]

    @property
    def counts(self) -> Counter[str]:
        """How many tests passed, failed and so on."""
        return Counter({word: int(number) for number, word in _COUNTED.findall(self.summary[-1])})


def packages_of_tests(folder: Path = TESTS) -> list[str]:
    """Return the names of the folders that hold tests, the longest-running first."""
    found = {path.relative_to(folder).parts[0] for path in folder.glob("*/**/test_*.py")}
    return [name for name in LONGEST_FIRST if name in found] + sorted(found.difference(LONGEST_FIRST))


def run_packages(packages: Sequence[str], options: Sequence[str], *, workers: int, folder: Path) -> Iterator[Ended]:
    """Run packages side by side and yield each when it ends; once interrupted, start no more and wait for the rest."""
    waiting, running = list(packages), dict[int, tuple[str, Path, float]]()

    def stop(signum: int, _frame: object) -> None:
        waiting.clear()
        for pid in running if signum == signal.SIGTERM else ():  # Ctrl-C reaches them by itself
            os.kill(pid, signal.SIGINT)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    with tempfile.TemporaryDirectory(prefix="cdi-tests-") as logs:
        while waiting or running:
            while waiting and len(running) < workers:
                package = waiting.pop(0)
                log = Path(logs) / package
                command = [sys.executable, "-m", "pytest", "-q", *options, f"{folder.name}/{package}"]
                with log.open("wb") as output:
                    process = subprocess.Popen(command, cwd=folder.parent, stdout=output, stderr=subprocess.STDOUT)
                running[process.pid] = package, log, time.monotonic()
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
    """Run tests, print each package as it ends and what failed at the end; return 1 unless all went well."""
    parser = argparse.ArgumentParser(prog="python -m cdi_dagster_tests.run_all", description=main.__doc__)
    parser.add_argument("packages", nargs="*", help="folders of tests (default: all)")
    parser.add_argument(
        "-w", "--workers", type=int, default=os.cpu_count() or 2, help="how many at a time (%(default)s)"
    )
    parser.add_argument("-m", dest="markers", help="only tests with these markers, as pytest takes them")
    asked = parser.parse_args(arguments)
    packages = asked.packages or packages_of_tests(folder)
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
