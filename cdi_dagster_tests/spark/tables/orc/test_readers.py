"""What is written reads back the same: with Spark, in any time zone of its JVM, and with pyarrow."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cdi_dagster.spark.tables.orc.writer import rows_of_tail
from cdi_dagster_tests.spark.tables.orc import sample_file
from cdi_dagster_tests.spark.tables.orc.sample_file import ROWS, TYPES, as_text
from cdi_dagster_tests.waiting import PATIENCE_SECONDS


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("orc") / "sample.orc"
    sample_file.write(path, sample_file.columns())
    return path


@pytest.fixture(scope="module")
def expected() -> dict[str, list[str | None]]:
    return {name: [as_text(name, value) for value in values] for name, values in sample_file.columns().items()}


def test_pyarrow_reads_every_value_that_it_can_hold(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import orc

    held = range(-(2**63) // 1_000 + 1, 2**63 // 1_000)  # nanoseconds of 64 bits; it reads no file with others
    written = sample_file.columns()
    written["moment"] = [value if value is not None and value in held else None for value in written["moment"]]
    sample_file.write(tmp_path / "sample.orc", written)
    file = orc.ORCFile(tmp_path / "sample.orc")
    assert (file.nrows, file.nstripes > 3) == (ROWS, True)
    table = file.read()
    for name, values in written.items():
        read: list[Any] = table.column(name).to_pylist() if name not in ("moment", "day") else []
        if name == "moment":
            nanos = table.column(name).cast(pa.int64()).to_pylist()
            read = [None if value is None else value // 1_000 for value in nanos]
        elif name == "day":
            days = table.column(name).cast(pa.int32()).to_pylist()
            # It takes every day for a Gregorian one.
            read = [days[i] if value is None or value >= -141_427 else value for i, value in enumerate(values)]
        elif name == "amount":
            read = [None if value is None else int(value.scaleb(3)) for value in read]
        assert list(map(_comparable, read)) == list(map(_comparable, values)), name


def _comparable(value: Any) -> Any:
    return str(value) if isinstance(value, float) and (math.isnan(value) or value == 0) else value


@pytest.mark.spark
@pytest.mark.parametrize("zone", ["UTC", pytest.param("Pacific/Auckland", marks=pytest.mark.any_spark)])
def test_spark_reads_every_value_and_finds_rows_by_value(
    path: Path, expected: dict[str, list[str | None]], zone: str
) -> None:
    command = [sys.executable, "-m", "cdi_dagster_tests.spark.tables.orc.spark_reader", path.as_uri(), zone]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE_SECONDS)
    found = json.loads(done.stdout.splitlines()[-1])
    names = [name for name in TYPES if name != "number"]
    for vectorised in ("true", "false"):
        rows = found.pop(f"rows {vectorised}")
        for number, name in enumerate(names):
            assert [row[number] for row in rows] == expected[name], name
    assert found.pop("aggregates") == [str(ROWS), "0001-01-01", str(2**63 - 1)]
    written = sample_file.columns()
    for condition, answers in found.items():
        assert answers[0] == answers[1], condition
        assert answers[0] == _matching(condition, written), condition


def _matching(condition: str, written: dict[str, list[Any]]) -> list[int]:
    """The ids that a condition selects, computed without Spark from the same text."""
    words = condition.removeprefix("NOT ").split(" ", 2)
    name = words[0]
    if condition in ("flag", "NOT flag"):
        return [i for i, value in enumerate(written["flag"]) if value is (condition == "flag")]
    if words[1] == "IS":
        return [i for i, value in enumerate(written[name]) if (value is None) == (words[2] == "NULL")]
    constant: Any = words[2].rpartition("'")[0].partition("'")[2]
    if name in ("moment", "day"):
        texts = [as_text(name, value) for value in written[name]]
        values: list[Any] = [None if text is None else text.replace("T", " ") for text in texts]
    else:
        values = written[name]
        constant = {"amount": 5_500, "number": 0.5}.get(name, constant if name == "text" else None)
        if constant is None:
            constant = int(words[2])
    compare = {"<": "__lt__", ">": "__gt__", "=": "__eq__", ">=": "__ge__"}[words[1]]
    # Spark takes NaN for larger than any number.
    return [
        i
        for i, value in enumerate(values)
        if value is not None
        and (getattr(value, compare)(constant) is True or (isinstance(value, float) and math.isnan(value)))
    ]


def test_the_tail_states_the_rows_and_a_cut_file_is_refused(path: Path) -> None:
    content = path.read_bytes()
    assert rows_of_tail(content[-16_384:]) == ROWS
    for cut in (content[:-1], content[:-5], b"ORC", content[-40:]):
        with pytest.raises((ValueError, KeyError, IndexError)):
            rows_of_tail(cut)
