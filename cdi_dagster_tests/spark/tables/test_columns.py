"""Columns out of blocks of records: exact keys, and nulls for what is not of the type, whatever is beside it."""

from typing import Any

from cdi_dagster.core.table_definition import Column
from cdi_dagster.spark.tables.columns import ColumnReader
from cdi_dagster_tests.spark.tables.reference import day_of
from cdi_dagster_tests.spark.tables.test_values import column


def rows(columns: tuple[Column, ...], *records: str) -> tuple[list[tuple[Any, ...]], dict[str, int]]:
    reader = ColumnReader(columns)
    read = reader.read("".join(f"{record}\n" for record in records).encode(), len(records))
    return list(zip(*read, strict=True)), dict(reader.unparsable)


def test_keys_count_by_case_and_a_key_may_be_a_value_and_a_way_down() -> None:
    wanted = (
        column("upper", "Status"),
        column("lower", "status"),
        column("dotted", "a.b", "C", type="int"),
        column("dotted_lower", "a.b", "c", type="decimal(4,1)"),
        column("whole", "x"),
        column("deep", "x", "y", "z"),
    )
    first = '{"Status":"A","a.b":{"C":1,"c":2},"status":"b","x":{"y":{"z":[1.5,"q"]}}}'
    assert rows(wanted, first, '{"x":"text"}') == (
        [
            ("A", "b", 1, 20, '{"y":{"z":[1.5,"q"]}}', '[1.5,"q"]'),
            (None, None, None, None, "text", None),
        ],
        {},
    )


def test_a_value_that_is_not_of_the_type_is_null_and_counted() -> None:
    wanted = (
        column("n", "n", type="bigint"),
        column("d", "d", type="date"),
        column("f", "f", type="double"),
        column("b", "b", type="boolean"),
    )
    found, unparsable = rows(
        wanted,
        '{"n":12,"d":"1980-02-29","f":1e+22,"b":true}',
        '{"n":"12 pounds","d":"1981-02-29","f":"1.5d","b":"maybe"}',
        '{"n":99999999999999999999,"d":{"d_date":"2023-03-26T23:59:59.999Z"},"f":"","b":null}',
        '{"n":1.5,"f":-0.0}',
        "{}",
    )
    assert unparsable == {"n": 3, "d": 1, "f": 1, "b": 1}
    assert [(n, d and str(day_of(d)), f, b) for n, d, f, b in found] == [
        (12, "1980-02-29", 1e22, True),
        (None, None, None, None),
        (None, "2023-03-26", None, None),
        (None, None, -0.0, None),
        (None, None, None, None),
    ]


def test_a_huge_number_or_a_deep_list_beside_a_column_does_not_empty_the_row() -> None:
    lines = ('{"a":"kept","n":' + "7" * 5000 + "}", '{"a":"deep","n":' + "[" * 20_000 + "]" * 20_000 + "}")
    assert rows((column("a", "a"),), *lines) == ([("kept",), ("deep",)], {})


def test_text_that_holds_json_is_no_way_down() -> None:
    line = '{"session":"{\\"id\\":\\"x\\"}","list":[{"id":"y"}]}'
    assert rows((column("session_id", "session", "id"), column("listed", "list", "id")), line) == ([(None, None)], {})
