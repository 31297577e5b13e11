"""The golden values: each record's text, path and type gives the expected value on the fast and on the slow way."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from cdi_dagster.core.table_definition import Column
from cdi_dagster.spark.tables.columns import ColumnReader
from cdi_dagster_tests.spark.tables.reference import day_of, moment_of

VECTORS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "vectors" / "table_values.jsonl").read_text(encoding="utf-8").splitlines()
]


def column(name: str, *path: str, type: str = "string") -> Column:
    return Column(name=name, path=path, type=type)


def read(kind: str, path: tuple[str, ...], *records: str) -> tuple[list[Any], int]:
    """Return the values of one column as JSON shows them, and how many were unparsable."""
    reader = ColumnReader([column("c", *path, type=kind)])
    (values,) = reader.read("".join(f"{record}\n" for record in records).encode(), len(records))
    return [shown(kind, value) for value in values], reader.unparsable["c"]


def shown(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "timestamp":
        return moment_of(value).replace(tzinfo=None).isoformat(timespec="microseconds")
    return day_of(value).isoformat() if kind == "date" else value


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['type']}: {vector['name']}")
def test_golden_value(vector: dict[str, Any]) -> None:
    kind, path, record = vector["type"], tuple(vector["path"]), vector["record"]
    expected = ([vector["expected"]], int(vector["unparsable"]))
    assert read(kind, path, record) == expected
    # A NaN beside it, and a line of other spacing: taken from the text.
    slow = record[:-1] + ("," if len(record) > 2 else "") + '"not a number":NaN}'
    assert read(kind, path, slow) == expected
    # Among others of a block.
    many = read(kind, path, "{}", record, slow, record)
    assert many == ([None, *expected[0] * 3], 3 * expected[1])


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("timestamp", '"T2"', None),
        ("timestamp", '"17:18"', None),
        ("timestamp", '"1969-12-31T23:59:59.999Z"', None),
        ("timestamp", '"1969-12-31T23:59:59Z"', "1969-12-31T23:59:59.000000"),
        ("timestamp", '"1969-12-31T23:59:58.999Z"', "1969-12-31T23:59:58.999000"),
        ("timestamp", '"1582-10-10T10:00:00Z"', None),
        ("timestamp", '"1582-10-04T23:59:59.5Z"', "1582-10-04T23:59:59.500000"),
        ("timestamp", '"0999-12-31T23:00:00.000Z"', "0999-12-31T23:00:00.000000"),
        ("timestamp", '"0001-01-01T00:00:00+0001"', None),
        ("timestamp", '"9999-12-31T23:59:59-0001"', None),
        ("timestamp", '"0000-06-01T00:00:00Z"', None),
        ("timestamp", '"2020-05-21T17:18:15.Z"', None),
        ("timestamp", '"2020-05-21T17:18:15,5Z"', None),
        ("timestamp", '"2020-05-21 17:18:15Z"', None),
        ("timestamp", '"2020-05-21T17:18:15+24:00"', None),
        ("timestamp", '"2020-05-21T17:18:15+01"', None),
        ("timestamp", '"2020-W21-4T17:18:15.693Z"', None),
        ("timestamp", '"２020-05-21T17:18:15.693Z"', None),
        ("timestamp", '"2020-05-21T17:60:15.693Z"', None),
        ("timestamp", '"2020-05-21T17:18:15.69éZ"', None),
        ("timestamp", '{"d_date":{"d_date":"2020-05-21T17:18:15.693Z"}}', None),
        ("timestamp", '{"d_date":null}', None),
        ("date", '"1931-03-08 garbage"', None),
        ("date", '"1582-10-10"', None),
        ("date", '"1582-10-04"', "1582-10-04"),
        ("date", '"0001-01-01"', "0001-01-01"),
        ("date", '"1969-12-31T23:59:59.999Z"', "1969-12-31"),
        ("date", '"160637"', None),
        ("date", "160637", None),
        ("double", '"12f"', None),
        ("double", '"0x10"', None),
        ("double", '"1_0"', None),
        ("double", '"NaN"', None),
        ("double", '"1e400"', None),
        ("double", "1e400", None),
        ("double", "1" * 400, None),
        ("double", '"00.5"', None),
        ("double", "Infinity", float("inf")),
        ("bigint", '"9223372036854775808"', None),
        ("bigint", '"-9223372036854775808"', -(2**63)),
        ("bigint", "9223372036854775808", None),
        ("bigint", '"-000"', 0),
        ("bigint", '"+"', None),
        ("bigint", '"' + "0" * 5000 + '7"', 7),
        ("bigint", '"' + "7" * 5000 + '"', None),
        ("bigint", "7" * 5000, None),
        ("bigint", '" 1"', None),
        ("bigint", "1e2", None),
        ("int", '"-2147483649"', None),
        ("boolean", '"1"', None),
        ("boolean", '"t"', None),
        ("boolean", '" true"', None),
        ("decimal(4,1)", "2", 20),
        ("decimal(4,1)", "2.50", 25),
        ("decimal(4,1)", "2.55", None),
        ("decimal(4,1)", "1000", None),
        ("decimal(4,1)", '"-999.9"', -9999),
        ("decimal(4,1)", '"1e2"', 1000),
        ("decimal(4,1)", "1e999999", None),
        ("decimal(4,1)", '"1e999999999999"', None),
        ("decimal(38,0)", "9" * 38, int("9" * 38)),
        ("decimal(38,0)", "9" * 39, None),
        ("decimal(4,1)", "true", None),
        ("decimal(4,1)", "NaN", None),
        ("decimal(4,1)", "-0.0", 0),
        ("decimal(20,18)", "0.100000000000000005", 100000000000000005),
        ("string", "[NaN]", "[NaN]"),
        ("string", "12345678.9", "12345678.9"),
        ("string", "-0", "-0"),
        ("string", "1E5", "1E5"),
        ("string", "[1.0 , 2]", "[1.0 , 2]"),
        ("string", '{"d_date":"2020-05-21T17:18:15.693Z"}', '{"d_date":"2020-05-21T17:18:15.693Z"}'),
        ("string", "7" * 5000, "7" * 5000),
        ("string", "[" * 3000 + "]" * 3000, "[" * 3000 + "]" * 3000),
        ("string", '"\\ud800"', None),
    ],
)
def test_a_value_is_the_records_own_or_null_and_counted(kind: str, value: str, expected: Any) -> None:
    counted = int(expected is None)
    assert read(kind, ("k",), f'{{"k":{value}}}') == ([expected], counted)
    assert read(kind, ("k",), f'{{"n":[NaN],"k": {value} }}') == ([expected], counted)
    assert read(kind, ("j", "k"), f'{{"j":{{"k":{value}}}}}', '{"j":"{}"}', '{"j":[{"k":1}]}') == (
        [expected, None, None],
        counted,
    )


def test_the_last_of_equal_keys_counts() -> None:
    for noise in ("", ',"n":NaN'):
        assert read("int", ("a", "b"), f'{{"a":{{"b":1,"b":2}},"a":{{"b":3,"b":4}}{noise}}}') == ([4], 0)
        assert read("int", ("a", "b"), f'{{"a":{{"b":1}},"a":5{noise}}}') == ([None], 0)


def test_every_day_of_every_century_keeps_its_name() -> None:
    days = [date(year, month, 28) for year in range(1, 10_000, 33) for month in (1, 2, 3, 12)]
    values, bad = read("date", ("d",), *(f'{{"d":"{day}"}}' for day in days))
    assert (values, bad) == ([str(day) for day in days], 0)
