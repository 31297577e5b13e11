"""`make bench-coalescer ARGS=--ingest`: `cdi ingest` of very many small raw objects on S3, as K2HB wrote them.

By this checkout, and by an earlier one where a folder is named, in alternation; both must publish the same records.
"""

import argparse
import os
import statistics
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import reading_alone
from benchmarks.coalescer import BUCKET, S3Server, served_s3
from benchmarks.data import COLLECTION, STORAGE_DAY, SampleSize, sample_day
from benchmarks.line_digest import LineDigest, digest_lines
from benchmarks.measured_process import Measured, run_measured
from cdi_dagster.core.storage_keys import daily_prefix
from cdi_dagster.demo.key_service import DevelopmentKeyService
from cdi_dagster.storage import open_storage

_REPOSITORY = Path(__file__).parents[1]
_AT_ONCE = 32
_READING, _READ = "Reading ", "Publishing "
"""What the job logs before its first task and after its last one."""


@dataclass(frozen=True, kw_only=True)
class IngestRun:
    """One measured run.

    Attributes:
        measured: wall-clock and CPU time of `cdi ingest`.
        records_seconds: from the start of the first task to the end of the last one.
        alone_seconds: of reading all objects, and nothing else.
        alone_cpu_seconds: of that.
        records: what it published.
    """

    measured: Measured
    records_seconds: float
    alone_seconds: float
    alone_cpu_seconds: float
    records: LineDigest


def measure(arguments: argparse.Namespace) -> int:
    """Run the benchmark: 0 done, 1 where the checkouts disagree."""
    latency_seconds = arguments.latency_milliseconds / 1000
    checkouts = {"here": _REPOSITORY} | ({"earlier": arguments.earlier} if arguments.earlier else {})
    with (
        tempfile.TemporaryDirectory() as folder,
        DevelopmentKeyService() as keys,
        served_s3(arguments.s3, latency_seconds) as server,
    ):
        objects = _put_day(server, Path(folder), arguments)
        limit = server.limit(arguments.objects)
        print(
            f"{objects:,} objects; {_AT_ONCE} threads that only GET take {objects / limit:.1f} s for as many requests "
            f"({limit:,.0f} a second).",
            flush=True,
        )
        runs: dict[str, list[IngestRun]] = {name: [] for name in checkouts}
        for number in range(arguments.rounds):
            for name in list(checkouts) if number % 2 == 0 else list(checkouts)[::-1]:
                run = _run(checkouts[name], server, keys.url, Path(folder))
                runs[name].append(run)
                figures = ", ".join(f"{title} {figure(run):.1f}" for title, figure in _FIGURES.items())
                print(f"{name}: {figures}", file=sys.stderr, flush=True)
    if len({run.records for of_one in runs.values() for run in of_one}) != 1:
        print("They published different records: the figures are void.", file=sys.stderr)
        return 1
    _print(runs, arguments)
    return 0


def _put_day(server: S3Server, folder: Path, arguments: argparse.Namespace) -> int:
    """Write the day's raw objects to the bucket; return how many."""
    size = SampleSize(records=arguments.objects * arguments.records, objects=arguments.objects)
    day = sample_day(folder, size, lambda _: None).folder
    paths = sorted(day.rglob("*.gz"))
    server.request("PUT", f"/{BUCKET}")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda path: server.put(f"{BUCKET}/{path.relative_to(day)}", path.read_bytes()), paths))
    return len(paths)


def _run(checkout: Path, server: S3Server, dks_url: str, folder: Path) -> IngestRun:
    bucket = f"published-{uuid.uuid4().hex[:12]}"
    server.request("PUT", f"/{bucket}")
    home = Path(tempfile.mkdtemp(dir=folder))
    environment = server.environment() | {"PYTHONPATH": str(checkout), "CDI_HOME": str(home)}
    os.environ |= {name: value for name, value in environment.items() if name.startswith("AWS_")}
    command = [sys.executable, "-m", "cdi_dagster.cli", "ingest", "--override-gate", "--dks-url", dks_url]
    command += ["--corporate-root", f"s3://{BUCKET}", "--published-root", f"s3://{bucket}"]
    command += ["--collection", COLLECTION.id, "--storage-day", str(STORAGE_DAY)]
    measured = run_measured(command, environment=environment, work_folder=home)
    command = [sys.executable, reading_alone.__file__, f"s3://{BUCKET}", COLLECTION.id, str(STORAGE_DAY)]
    alone = run_measured(command, environment=environment, work_folder=home)
    return IngestRun(
        measured=measured,
        records_seconds=measured.seconds_since(_READING) - measured.seconds_since(_READ),
        alone_seconds=float(alone.log[-1][1].removeprefix(reading_alone.READ_IN)),
        alone_cpu_seconds=alone.cpu_seconds,
        records=_records(bucket, home),
    )


def _records(bucket: str, folder: Path) -> LineDigest:
    storage = open_storage(f"s3://{bucket}")
    paths = []
    for stored in storage.list(daily_prefix(COLLECTION.on(STORAGE_DAY))):
        if stored.key.endswith(".gz"):
            paths.append(folder / f"part-{len(paths)}.gz")
            paths[-1].write_bytes(storage.read(stored.key))
    return digest_lines(paths)


_FIGURES: Mapping[str, Callable[[IngestRun], float]] = {
    "`cdi ingest`, s": lambda run: run.measured.wall_seconds,
    "of it from the first task to the last, s": lambda run: run.records_seconds,
    "CPU, s": lambda run: run.measured.cpu_seconds,
    "reading alone, s": lambda run: run.alone_seconds,
    "its CPU, with the start, s": lambda run: run.alone_cpu_seconds,
}


def _print(runs: Mapping[str, list[IngestRun]], arguments: argparse.Namespace) -> None:
    print(
        f"\n{arguments.objects:,} objects of about {arguments.records} records on {arguments.s3}, "
        f"{arguments.latency_milliseconds:g} ms a request, median (least to most) of {arguments.rounds}:\n"
    )
    print(f"| | {' | '.join(runs)} |\n|---|{'--:|' * len(runs)}")
    for title, figure in _FIGURES.items():
        values = {name: sorted(map(figure, found)) for name, found in runs.items()}
        cells = [f"{statistics.median(of):.1f} ({of[0]:.1f} to {of[-1]:.1f})" for of in values.values()]
        print(f"| {title} | {' | '.join(cells)} |")
