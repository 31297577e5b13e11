"""The tables of a measured day: made by plain Spark SQL or by the job, measured, and read back to be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyarrow import orc

from benchmarks.measured_process import Measured, run_measured


@dataclass(frozen=True, kw_only=True)
class RowDigest:
    """The rows of a table as a multiset: two tables with the same rows have the same digest (in one process).

    Attributes:
        rows: how many.
        digest_sum: sum of the rows' hashes.
    """

    rows: int
    digest_sum: int


@dataclass(frozen=True, kw_only=True)
class TablesRun:
    """One measured run of the tables.

    Attributes:
        measured: time and CPU of the process.
        tables: what it wrote, by table.
        stored_bytes: of the ORC files.
    """

    measured: Measured
    tables: Mapping[str, RowDigest]
    stored_bytes: int


def run_tables(
    command: Sequence[str], *, environment: Mapping[str, str], work_folder: Path, folders: Mapping[str, Path]
) -> TablesRun:
    """Run what makes the tables, and read them back from their folders.

    Raises:
        MeasuredProcessError: it failed.
    """
    measured = run_measured(command, environment=environment, work_folder=work_folder)
    files = {name: sorted(folder.rglob("*.orc")) for name, folder in folders.items()}
    return TablesRun(
        measured=measured,
        tables={name: digest_rows(paths) for name, paths in files.items()},
        stored_bytes=sum(path.stat().st_size for paths in files.values() for path in paths),
    )


def digest_rows(paths: Sequence[Path]) -> RowDigest:
    """Return the digest of the rows of ORC files, stripe by stripe."""
    rows = total = 0
    for path in paths:
        file = orc.ORCFile(path)
        for number in range(file.nstripes):
            stripe = file.read_stripe(number)
            for values in zip(*(column.to_pylist() for column in stripe.columns), strict=True):
                total = (total + hash(values)) & (2**64 - 1)
            rows += stripe.num_rows
    return RowDigest(rows=rows, digest_sum=total)
