"""`python -m benchmarks`: makes the days, runs every contender in turn, compares outputs, prints the figures."""

import argparse
import json
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import record_stages, table_stages
from benchmarks.contenders import Contender, Run, Setting, run_once
from benchmarks.data import SampleDay, SampleSize, sample_day
from benchmarks.figures import Case, for_machines
from benchmarks.key_services import key_services
from benchmarks.measured_process import MeasuredProcessError
from benchmarks.report import as_markdown, write_into
from cdi_dagster.core.failures import CdiError

_DESCRIPTION = """\
Compare the Spark job ingest_daily with the plain chain (the same records, one function per step) and with the floor
(one process, no Spark), over the same invented days. Uses both cores: run it on an idle machine. The defaults take
about 6 minutes; --records 20000 --rounds 1 takes one and shows that it works."""

Log = Callable[[str], None]


class OutputsDifferError(Exception):
    """Two contenders did not publish the same records or rejects, so the figures are void."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark: 0 done, 1 failed (outputs differ, a contender failed), 2 wrong usage."""
    arguments = _parsed(sys.argv[1:] if argv is None else argv)
    log = _progress_log(quiet=arguments.json)
    # By SystemExit, so that everything is cleaned up.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        _run(arguments, log)
    except (MeasuredProcessError, OutputsDifferError, CdiError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _run(arguments: argparse.Namespace, log: Log) -> None:
    with (
        _folders(arguments.folder, keep=arguments.keep) as (data_folder, work_folder),
        _setting(arguments, work_folder) as setting,
    ):
        cases = [
            _measured_case(sample_day(data_folder, size, log), arguments, setting, log) for size in _sizes(arguments)
        ]
    stages = None
    if arguments.stage_records:
        log("measuring stage by stage")
        stages = dict(record_stages.measure(arguments.stage_records, arguments.seed, rounds=5).microseconds)
        of_tables = table_stages.measure(arguments.stage_records, arguments.seed, rounds=5)
        stages |= {f"tables: {stage}": cost for stage, cost in of_tables.items()}
    if arguments.json:
        print(json.dumps({"cases": [for_machines(case) for case in cases], "stages_microseconds": stages}, indent=1))
    text = as_markdown(
        cases,
        stages,
        command=f"make bench ARGS={shlex.quote(' '.join(_without_write(arguments.argv)))}",
        setting=f"Spark {arguments.master}, driver memory {arguments.driver_memory}",
    )
    if not arguments.json:
        print(text)
    if arguments.write:
        write_into(arguments.write, text)


def _measured_case(day: SampleDay, arguments: argparse.Namespace, setting: Setting, log: Log) -> Case:
    """Run every contender in every round, alternating the order, so that no position is an advantage."""
    contenders = _contenders(arguments)
    for path in day.folder.rglob("*.gz"):
        path.read_bytes()  # warm the disk cache for all of them
    rounds = []
    for number in range(arguments.rounds):
        order = contenders if number % 2 == 0 else contenders[::-1]
        runs: dict[Contender, Run] = {}
        for contender in order:
            run = run_once(contender, day, setting)
            log(
                f"{day.size.records:,} records in {day.size.objects:,} objects, round {number + 1} of "
                f"{arguments.rounds}: {contender} {run.measured.wall_seconds:.1f} s, "
                f"CPU {run.measured.cpu_seconds:.1f} s"
            )
            if run.tables:
                of_tables = run.tables.measured
                log(f"  its tables {of_tables.wall_seconds:.1f} s, CPU {of_tables.cpu_seconds:.1f} s")
            runs[contender] = run
        _require_equal(day, runs)
        rounds.append(runs)
    return Case(day=day, rounds=rounds)


def _contenders(arguments: argparse.Namespace) -> list[Contender]:
    optional = {
        Contender.CHAIN: not arguments.without_chain,
        Contender.TUNED_CHAIN: arguments.tuned_chain,
        Contender.SLOW_KEYS: bool(arguments.dks_latency_milliseconds),
    }
    return [contender for contender in Contender if optional.get(contender, True)]


def _require_equal(day: SampleDay, runs: Mapping[Contender, Run]) -> None:
    job = runs[Contender.JOB]
    for contender, run in runs.items():
        if run.records != job.records or run.rejected != job.rejected:
            raise OutputsDifferError(
                f"The {contender} and the job disagree: {run.records} and {dict(run.rejected)} rejected, against "
                f"{job.records} and {dict(job.rejected)} rejected. One of them is wrong: run --keep with fewer "
                "--records until the day is small enough to compare by eye."
            )
    made = {contender: run.tables.tables for contender, run in runs.items() if run.tables}
    for contender, tables in made.items():
        if tables != made[Contender.JOB]:
            raise OutputsDifferError(f"The tables of the {contender} are others than the job's.")
    if job.records.lines + sum(job.rejected.values()) != day.size.records:
        raise OutputsDifferError(f"All agree on {job.records.lines} records, but the day holds {day.size.records}.")


@contextmanager
def _folders(folder: Path, *, keep: bool) -> Iterator[tuple[Path, Path]]:
    """Yield the folder of days (kept only with `keep`) and the work folder of runs (always removed)."""
    folder.mkdir(parents=True, exist_ok=True)
    work_folder = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
    try:
        yield folder, work_folder
    finally:
        shutil.rmtree(work_folder, ignore_errors=True)
        if not keep:
            for day in folder.glob("day-*"):
                shutil.rmtree(day)


@contextmanager
def _setting(arguments: argparse.Namespace, work_folder: Path) -> Iterator[Setting]:
    latency_seconds = arguments.dks_latency_milliseconds / 1000
    with key_services(work_folder / "tls", latency_seconds=latency_seconds) as keys:
        yield Setting(
            work_folder=work_folder,
            master=arguments.master,
            driver_memory=arguments.driver_memory,
            spark_conf=dict(arguments.spark_conf),
            keys=keys,
            tables=not arguments.without_tables,
        )


def _sizes(arguments: argparse.Namespace) -> list[SampleSize]:
    def size(records: int, objects: int) -> SampleSize:
        return SampleSize(
            records=records,
            objects=min(objects, records),
            bad_envelopes=arguments.bad_envelopes,
            keys_per_object=arguments.keys_per_object,
            seed=arguments.seed,
        )

    sizes = [size(records, arguments.objects) for records in arguments.records]
    if arguments.small_objects:
        sizes.append(size(arguments.records[0], arguments.small_objects))
    return sizes


def _progress_log(*, quiet: bool) -> Log:
    """Return a logger of progress: to standard error, with the time since the start."""
    started = time.monotonic()

    def log(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    return (lambda text: None) if quiet else log


def _without_write(argv: Sequence[str]) -> list[str]:
    arguments = list(argv)
    if "--write" in arguments:
        index = arguments.index("--write")
        del arguments[index : index + 2]
    return arguments


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=_DESCRIPTION, allow_abbrev=False)
    day = parser.add_argument_group("the days")
    day.add_argument(
        "--records", type=_count, nargs="+", default=[320_000], help="envelopes; several make several days (320000)"
    )
    day.add_argument("--objects", type=_count, default=16, help="raw objects of each (16)")
    day.add_argument(
        "--small-objects", type=int, default=0, help="a further day: the first --records in this many objects (none)"
    )
    day.add_argument("--bad-envelopes", type=int, default=0, help="broken envelopes in each object (0)")
    day.add_argument("--keys-per-object", type=_count, default=2, help="distinct data keys in each object (2)")
    day.add_argument("--seed", type=int, default=1)
    day.add_argument("--keep", action="store_true", help="keep the days below --folder for the next time")
    day.add_argument("--folder", type=_folder, default=_folder(".cdi/bench"), help="working folder (.cdi/bench)")
    run = parser.add_argument_group("the runs")
    run.add_argument("--rounds", type=_count, default=3, help="every figure is the median of this many rounds (3)")
    run.add_argument(
        "--dks-latency-milliseconds",
        type=float,
        default=0.0,
        help="also measure the job with a key service this slow (0: no)",
    )
    run.add_argument("--without-chain", action="store_true", help="leave out the plain chain, which takes longest")
    run.add_argument("--without-tables", action="store_true", help="only the records, not the tables of the day")
    run.add_argument(
        "--tuned-chain", action="store_true", help="also measure the plain chain with the job's Spark settings"
    )
    run.add_argument(
        "--stage-records", type=int, default=20_000, help="records to measure stage by stage; 0: none (20000)"
    )
    run.add_argument("--master", default="local[2]", help="Spark master (local[2])")
    run.add_argument("--driver-memory", default="2g", help="heap of the JVM (2g)")
    run.add_argument(
        "--spark-conf", type=_pair, action="append", default=[], metavar="KEY=VALUE", help="for chain and job alike"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print JSON, and no progress")
    output.add_argument("--write", type=Path, metavar="FILE", help="also put the tables into this document")
    return parser.parse_args(list(argv), argparse.Namespace(argv=list(argv)))


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _folder(text: str) -> Path:
    return Path(text).absolute()


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value
