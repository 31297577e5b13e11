"""`python -m benchmarks.snapshot`: the job build_snapshot compared with a plain Spark program, as rows grow."""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import plain_snapshot
from benchmarks.measured_process import Measured, MeasuredProcessError, run_measured
from benchmarks.snapshot_data import BASE_DAY, COLLECTION, DAYS, EXPORT_DAY, SnapshotInputSize, snapshot_input
from benchmarks.tables import RowDigest, digest_rows
from cdi_dagster.core.spark_jobs import BUILD_SNAPSHOT
from cdi_dagster.core.storage_keys import all_daily_rows_prefix, snapshot_prefix
from cdi_dagster.local_spark.java import find_java
from cdi_dagster.local_spark.spark_submit import SparkProcessConfig, spark_environment, spark_submit_command
from cdi_dagster.published.snapshots import snapshot_of

_DESCRIPTION = """\
Compare the Spark job build_snapshot with a plain program (union, row_number over a window by id, write by id_part), on
the same Spark with the same settings, over the same generated base and seven days. Rows are compared after every run.
The defaults take about 20 minutes; --rows 20000 --rounds 1 takes one and shows that it works."""
_NAMES: Final = ("ours", "plain")


@dataclass(frozen=True, kw_only=True)
class SnapshotRun:
    """One measured run.

    Attributes:
        measured: time, CPU and memory.
        rows: what it wrote, by the folder of the id_part.
        files: how many it wrote.
        load: of the machine before it, the mean of a minute.
    """

    measured: Measured
    rows: Mapping[str, RowDigest]
    files: int
    load: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark: 0 done, 1 where a run fails or the two disagree."""
    arguments = _parsed(argv)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    table = [_HEADER]
    try:
        for rows in arguments.rows:
            size = SnapshotInputSize(rows=rows, id_parts=min(arguments.id_parts, rows))
            runs = _measured(size, arguments)
            table += _lines(rows, runs)
    except (MeasuredProcessError, _DifferError) as error:
        print(error, file=sys.stderr)
        return 1
    rounds = f"{arguments.rounds} round{'s' if arguments.rounds > 1 else ''}"
    print(f"{arguments.id_parts} id_parts, Spark {arguments.master}, {arguments.driver_memory}, medians of {rounds}:\n")
    print("\n".join(table))
    return 0


class _DifferError(Exception):
    """The two wrote other rows, so the figures are void."""


def _measured(size: SnapshotInputSize, arguments: argparse.Namespace) -> dict[str, list[SnapshotRun]]:
    """Run both in every round, alternating the order."""
    runs: dict[str, list[SnapshotRun]] = {name: [] for name in _NAMES}
    root = snapshot_input(arguments.folder, size, _log)
    try:
        for path in root.rglob("*.orc"):
            path.read_bytes()  # warm the disk cache for both
        for number in range(arguments.rounds):
            for name in _NAMES if number % 2 == 0 else _NAMES[::-1]:
                run = _run(name, root, arguments)
                runs[name].append(run)
                _log(f"{size.rows:,} rows: {_figures(name, run)}")
            if runs["ours"][-1].rows != runs["plain"][-1].rows:
                raise _DifferError(f"The two left different rows of {size.rows:,}: the figures are void.")
    finally:
        if not arguments.keep:
            shutil.rmtree(root)
    return runs


def _run(name: str, root: Path, arguments: argparse.Namespace) -> SnapshotRun:
    with tempfile.TemporaryDirectory(prefix="work-", dir=arguments.folder) as work:
        folder = Path(work)
        published = folder / "published"
        shutil.copytree(root, published, copy_function=os.link)  # the job writes below it
        load = os.getloadavg()[0]
        measured = run_measured(
            _command(name, published, folder, arguments),
            environment=spark_environment(find_java().path),
            work_folder=folder,
        )
        output = published / snapshot_prefix(snapshot_of(COLLECTION, EXPORT_DAY))
        files = [path for path in output.rglob("*.orc") if not path.name.startswith((".", "_"))]
        by_part = {each.name: digest_rows(sorted(each.glob("*.orc"))) for each in output.glob("id_part=*")}
        return SnapshotRun(measured=measured, rows=by_part, files=len(files), load=load)


def _command(name: str, published: Path, folder: Path, arguments: argparse.Namespace) -> list[str]:
    config = SparkProcessConfig(
        work_folder=folder,
        metastore_folder=folder / "metastore",
        master=arguments.master,
        driver_memory=arguments.driver_memory,
        # The job sets the encryption itself: rows must not lie readable on disks. The plain program is to keep that.
        conf={"spark.local.dir": str(folder), "spark.io.encryption.enabled": "true", **dict(arguments.spark_conf)},
    )
    job = [
        *("--published-root", published.as_uri(), "--collection", COLLECTION.id, "--export-day", str(EXPORT_DAY)),
        *("--first-storage-day", str(DAYS[0]), "--correlation-id", "benchmark"),
    ]
    if name == "ours":
        return spark_submit_command(BUILD_SNAPSHOT, job, config=config)
    *spark_submit, _entry_point_of_the_job = spark_submit_command(BUILD_SNAPSHOT, [], config=config)
    of_base, of_days = snapshot_of(COLLECTION, BASE_DAY), all_daily_rows_prefix(COLLECTION)
    return [
        *(*spark_submit, plain_snapshot.__file__, "--base", str(published / snapshot_prefix(of_base))),
        *(
            "--days",
            str(published / of_days),
            "--output",
            str(published / snapshot_prefix(snapshot_of(COLLECTION, EXPORT_DAY))),
        ),
    ]


_HEADER: Final = """\
| rows | | wall, s | CPU, s | CPU a row, µs | largest process, MB | files | ours is better by: wall | CPU |
|--:|---|--:|--:|--:|--:|--:|--:|--:|"""


def _lines(rows: int, runs: Mapping[str, Sequence[SnapshotRun]]) -> list[str]:
    """Return two lines of the table; a ratio is the median of the rounds' ratios."""

    def ratio(of: Callable[[SnapshotRun], float]) -> str:
        pairs = zip(runs["plain"], runs["ours"], strict=True)
        return f"{statistics.median(of(plain) / of(ours) for plain, ours in pairs):.2f}x"

    lines = []
    for name in _NAMES:
        wall, cpu, peak = (statistics.median(map(of, runs[name])) for of in (_wall, _cpu, _peak))
        better = f"{ratio(_wall)} | {ratio(_cpu)}" if name == "ours" else " | "
        lines.append(
            f"| {rows:,} | {name} | {wall:.1f} | {cpu:.1f} | {cpu / rows * 1e6:.1f} | {peak / 1e6:,.0f} "
            f"| {runs[name][-1].files:,} | {better} |"
        )
    return lines


def _wall(run: SnapshotRun) -> float:
    return run.measured.wall_seconds


def _cpu(run: SnapshotRun) -> float:
    return run.measured.cpu_seconds


def _peak(run: SnapshotRun) -> float:
    return run.measured.largest_process_bytes


def _figures(name: str, run: SnapshotRun) -> str:
    return (
        f"{name} {_wall(run):.1f} s, CPU {_cpu(run):.1f} s, largest process {_peak(run) / 1e6:,.0f} MB, "
        f"{run.files} files, load {run.load:.1f}"
    )


def _log(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-snapshot", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[1_000_000, 2_000_000, 4_000_000],
        help="of base and days together; several make several inputs (1000000 2000000 4000000)",
    )
    parser.add_argument("--id-parts", type=int, default=16, help="of the 256 that production has (16)")
    parser.add_argument("--rounds", type=int, default=3, help="every figure is the median of this many rounds (3)")
    parser.add_argument("--master", default="local[2]", help="Spark master (local[2])")
    parser.add_argument("--driver-memory", default="2g", help="heap of the JVM (2g)")
    parser.add_argument("--spark-conf", type=_pair, action="append", default=[], metavar="KEY=VALUE", help="for both")
    parser.add_argument("--keep", action="store_true", help="keep the inputs below --folder for the next time")
    parser.add_argument("--folder", type=lambda text: Path(text).absolute(), default=Path(".cdi/bench").absolute())
    return parser.parse_args(argv)


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
