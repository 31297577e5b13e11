"""An ORC file with awkward values of every type, in several stripes, and what readers must find in it."""

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from cdi_dagster.spark.tables.orc import encodings
from cdi_dagster.spark.tables.orc.writer import OrcWriter
from cdi_dagster.spark.tables.values import conversion

TYPES: dict[str, type[encodings.OrcColumn]] = {
    "id": encodings.LongColumn,
    "text": encodings.StringColumn,
    "long": encodings.LongColumn,
    "short": encodings.IntColumn,
    "day": encodings.DateColumn,
    "moment": encodings.TimestampColumn,
    "number": encodings.DoubleColumn,
    "flag": encodings.BooleanColumn,
    "amount": encodings.decimal_column(20, 3),
    "nothing": encodings.TimestampColumn,
}
SCHEMA = (
    "id BIGINT, text STRING, long BIGINT, short INT, day DATE, moment TIMESTAMP, number DOUBLE, flag BOOLEAN, "
    "amount DECIMAL(20,3), nothing TIMESTAMP"
)
ROWS = 4_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)


def _micros(year: int, month: int = 1, day: int = 1) -> int:
    return (datetime(year, month, day, tzinfo=UTC) - _EPOCH) // _MICRO


def _moment(random: random.Random) -> int:
    """Any year, dense around 1970 and around the change of calendar."""
    micros = random.choice(
        [
            random.randrange(_micros(1, 1, 1), _micros(9999, 12, 31)),
            random.randrange(-4_000_000, 4_000_000),
            random.randrange(-4_000, 4_000) * 1_000,
            random.randrange(-9, 9) * 1_000_000,
            _micros(1582, 10, 5) - random.randrange(1, 2_000_000),
            _micros(1582, 10, 15) + random.randrange(2_000_000),
            _micros(2023, 3, 26) + random.randrange(86_400_000) * 1_000,
        ]
    )
    text = (_EPOCH + micros * _MICRO).isoformat(timespec="microseconds").removesuffix("+00:00")
    convert = conversion("timestamp")
    assert convert is not None
    kept = convert(text)
    return kept if isinstance(kept, int) else _moment(random)  # some values no reader keeps


def _day(random: random.Random) -> int:
    day = random.choice([random.randrange(-719_162, 2_932_897), random.randrange(-141_450, -141_400), -719_162, 0, -1])
    return day if not -141_437 <= day < -141_427 else _day(random)


_MAKE: dict[str, Callable[[random.Random], Any]] = {
    "text": lambda random: random.choice(
        ["", "a", "Zoë \U0001f600" * random.randrange(90), "x" * random.randrange(40_000)]
    ),
    "long": lambda random: random.choice([0, 1, -(2**63), 2**63 - 1, random.randrange(-99, 99)]),
    "short": lambda random: random.choice([0, -(2**31), 2**31 - 1, random.randrange(-99, 99)]),
    "day": _day,
    "moment": _moment,
    "number": lambda random: random.choice([float("inf"), float("nan"), -0.0, 1e22, random.random()]),
    "flag": lambda random: random.random() < 0.5,
    "amount": lambda random: random.choice([0, 10**20 - 1, 1 - 10**20, random.randrange(-(10**6), 10**6)]),
    "nothing": lambda random: None,
}


def columns() -> dict[str, list[Any]]:
    """Return the values of each column, as the writer takes them."""
    seeded = random.Random(7)
    values: dict[str, list[Any]] = {"id": list(range(ROWS))}
    for name, make in _MAKE.items():
        values[name] = [make(seeded) if seeded.random() > 0.2 else None for _ in range(ROWS)]
    return values


def write(path: Path, values: dict[str, list[Any]]) -> None:
    """Write the file, in uneven blocks and stripes."""
    with path.open("wb") as file:
        writer = OrcWriter(file.write, list(TYPES), list(TYPES.values()))
        seeded, done = random.Random(8), 0
        while done < ROWS:
            size = min(seeded.choice([1, 3, 7, 128, 129, 500]), ROWS - done)
            writer.write([of_column[done : done + size] for of_column in values.values()])
            done += size
            if seeded.random() < 0.2:
                writer.end_stripe()
        writer.finish()


def as_text(name: str, value: Any) -> str | None:
    """Return a value as Spark casts it to a string, floats as Python does."""
    if value is None:
        return None
    if name == "day":
        return str(date.fromordinal(value + date(1970, 1, 1).toordinal()))
    if name == "moment":
        text = (_EPOCH + value * _MICRO).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
        return text.rstrip("0").rstrip(".")
    if name == "amount":
        sign, digits = "-" if value < 0 else "", f"{abs(value):04d}"
        return f"{sign}{digits[:-3]}.{digits[-3:]}"
    if name == "flag":
        return str(value).lower()
    return repr(value) if name == "number" else str(value)
