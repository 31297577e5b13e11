"""`python -m benchmarks.coalescer`: the coalescer compared with a plain one, on an S3 in memory with latency."""

import argparse
import gzip
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import quote

import urllib3

from benchmarks.measured_process import Measured, run_measured
from benchmarks.stand_in_s3 import REQUESTS_PATH
from cdi_dagster.core.collections import find_collection
from cdi_dagster.storage import Storage, open_storage

_DESCRIPTION = """\
Compare the coalescer with a plain one (list, read by 16 threads, concatenate, put, delete; no claim, no check) on an S3
in memory whose every response takes a while, and which one process serves. Both must leave the same lines."""
_DAY = find_collection("data:businessAudit").on(date(2023, 3, 26))
BUCKET = "corporate"
_KAFKA_PARTITIONS = 4
_AT_ONCE = 32
SERVERS = {"stand-in": "benchmarks.stand_in_s3", "moto": "benchmarks.moto_s3"}


@dataclass(frozen=True, kw_only=True)
class CoalescerRun:
    """One measured run.

    Attributes:
        measured: wall-clock and CPU time.
        requests: that the S3 received.
        lines: digest of the day's lines afterwards, in any order.
    """

    measured: Measured
    requests: int
    lines: str


class S3Server:
    """An S3 of a benchmark, seen from outside."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._pool = urllib3.PoolManager(maxsize=_AT_ONCE, block=True)

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Send one unsigned request."""
        return self._pool.request(method, f"{self.url}{path}", body=body).data

    def put(self, path: str, data: bytes) -> None:
        """Write one object."""
        self.request("PUT", f"/{quote(path)}", data)

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that uses it."""
        return os.environ | {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "eu-west-2",
        }

    def requests_since(self) -> int:
        """Return how many requests it received since the last time."""
        lines = self.request("GET", REQUESTS_PATH).decode().splitlines()
        return sum(int(line.rpartition(" ")[2]) for line in lines)

    def put_day(self, objects: int, records: int) -> None:
        """Write a day of raw objects, and nothing else."""
        of_partition = objects // _KAFKA_PARTITIONS
        names = [
            (partition, number * records, (number + 1) * records - 1)
            for partition in range(_KAFKA_PARTITIONS)
            for number in range(of_partition)
        ]

        def put(name: tuple[int, int, int]) -> None:
            partition, first, last = name
            lines = b"".join(b'{"p":%d,"o":%d}\n' % (partition, offset) for offset in range(first, last + 1))
            key = f"{_DAY.corporate_prefix}data.businessAudit_{partition}_{first}-{last}.jsonl.gz"
            self.put(f"{BUCKET}/{key}", gzip.compress(lines, 1, mtime=0))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(put, names))

    def limit(self, requests: int = 4000) -> float:
        """Return the requests a second that it can answer: of plain GETs of one small object, by 32 threads."""
        self.request("PUT", f"/{BUCKET}/limit", b"x" * 200)
        started = time.monotonic()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda _: self.request("GET", f"/{BUCKET}/limit"), range(requests)))
        self.request("DELETE", f"/{BUCKET}/limit")
        return requests / (time.monotonic() - started)


@contextmanager
def served_s3(kind: str, latency_seconds: float) -> Iterator[S3Server]:
    """Run one of `SERVERS` during the block."""
    command = [sys.executable, "-m", SERVERS[kind], "0", str(latency_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own module
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            yield S3Server(int(process.stdout.readline()))
        finally:
            process.terminate()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark: 0 done, 1 where the two disagree."""
    arguments = _parsed(argv)
    if arguments.ingest:
        from benchmarks import small_objects

        return small_objects.measure(arguments)
    with tempfile.TemporaryDirectory() as folder, served_s3("stand-in", 0.0) as quick:
        print(f"Without latency the S3 in memory answers {quick.limit():,.0f} requests a second.")
        with served_s3("stand-in", arguments.latency_milliseconds / 1000) as server:
            runs: dict[str, list[CoalescerRun]] = {name: [] for name in _COMMANDS}
            for number in range(arguments.rounds):
                for name in list(_COMMANDS) if number % 2 == 0 else list(_COMMANDS)[::-1]:
                    run = _run(name, server, arguments, Path(folder))
                    runs[name].append(run)
                    print(_line(name, run, arguments.objects), file=sys.stderr, flush=True)
    if len({run.lines for of_one in runs.values() for run in of_one}) != 1:
        print("The two left different lines: the figures are void.", file=sys.stderr)
        return 1
    _print(runs, arguments)
    return 0


def _run(name: str, server: S3Server, arguments: argparse.Namespace, folder: Path) -> CoalescerRun:
    environment = server.environment() | {"PYTHONPATH": str(Path(__file__).parents[1])}
    os.environ |= {variable: environment[variable] for variable in environment if variable.startswith("AWS_")}
    storage = open_storage(f"s3://{BUCKET}")
    storage.delete([stored.key for stored in storage.list("")])
    server.put_day(arguments.objects, arguments.records)
    server.requests_since()
    measured = run_measured(_COMMANDS[name](), environment=environment, work_folder=folder)
    return CoalescerRun(measured=measured, requests=server.requests_since(), lines=_lines_of(storage))


def _ours() -> list[str]:
    command = [sys.executable, "-m", "cdi_dagster.coalescer", "--corporate-root", f"s3://{BUCKET}"]
    return [*command, "--collection", _DAY.collection.id, "--storage-day", str(_DAY.storage_day)]


def _plain() -> list[str]:
    return [sys.executable, "-m", "benchmarks.plain_coalescer", f"s3://{BUCKET}/{_DAY.corporate_prefix}"]


_COMMANDS: dict[str, Callable[[], list[str]]] = {"ours": _ours, "plain": _plain}


def _lines_of(storage: Storage) -> str:
    lines: list[bytes] = []
    for stored in storage.list(_DAY.corporate_prefix):
        lines += gzip.decompress(storage.read(stored.key)).splitlines()
    return hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()


def _line(name: str, run: CoalescerRun, objects: int) -> str:
    measured = run.measured
    return (
        f"{name}: {measured.wall_seconds:.2f} s, CPU {measured.cpu_seconds:.2f} s "
        f"({measured.cpu_seconds / objects * 1000:.2f} ms an object), {run.requests:,} requests"
    )


def _print(runs: dict[str, list[CoalescerRun]], arguments: argparse.Namespace) -> None:
    wall = {name: statistics.median(run.measured.wall_seconds for run in found) for name, found in runs.items()}
    cpu = {name: statistics.median(run.measured.cpu_seconds for run in found) for name, found in runs.items()}
    print(
        f"{arguments.objects:,} objects of {arguments.records} records, {arguments.latency_milliseconds:g} ms a "
        f"request, median of {arguments.rounds}:\n"
    )
    print("| coalescer | wall | CPU | CPU an object | requests |\n|---|---|---|---|---|")
    for name, found in runs.items():
        each = cpu[name] / arguments.objects * 1000
        print(f"| {name} | {wall[name]:.2f} s | {cpu[name]:.2f} s | {each:.2f} ms | {found[-1].requests:,} |")
    print(f"\nOurs takes {wall['plain'] / wall['ours']:.1f}x less wall and {cpu['plain'] / cpu['ours']:.1f}x less CPU.")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-coalescer", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--objects", type=int, default=2000, help="raw objects, of four Kafka partitions (2000)")
    parser.add_argument("--records", type=int, default=10, help="records of each (10)")
    parser.add_argument("--latency-milliseconds", type=float, default=20.0, help="of every response (20)")
    parser.add_argument("--rounds", type=int, default=3, help="every figure is the median of this many rounds (3)")
    parser.add_argument(
        "--ingest", action="store_true", help="measure `cdi ingest` of the raw objects instead; see below"
    )
    ingest = parser.add_argument_group("with --ingest", "over sample records, by Spark on this machine")
    ingest.add_argument("--s3", choices=SERVERS, default="stand-in", help="which S3 has the objects (stand-in)")
    ingest.add_argument("--earlier", type=_checkout, metavar="FOLDER", help="another checkout, to compare with")
    return parser.parse_args(argv)


def _checkout(text: str) -> Path:
    return Path(text).absolute()


if __name__ == "__main__":
    sys.exit(main())
