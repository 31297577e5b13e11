"""Which blocks are read by their types at once; what they hold is `test_values_against_reference`'s."""

from typing import Any

import pytest

from cdi_dagster.spark.tables.columns import ColumnReader
from cdi_dagster.spark.tables.typed_records import TypedRecords
from cdi_dagster_tests.spark.tables.test_values import column

COLUMNS = (
    column("id", "id"),
    column("at", "at", type="timestamp"),
    column("born", "who", "born", type="date"),
    column("age", "who", "age", type="int"),
    column("terms", "terms"),
)
USUAL = '{"id":"a","at":{"d_date":"2023-03-26T10:06:21.413Z"},"who":{"born":"2004-12-09","age":18},"other":[1, 2.50]}'


def read(records: TypedRecords, *lines: str) -> list[list[Any]] | None:
    return records.read("".join(f"{line}\n" for line in lines).encode(), len(lines))


def test_usual_records_are_read_at_once_and_what_is_missing_or_null_is_null() -> None:
    lines = (USUAL, '{"who":null,"terms":"x"}', "{}", '{"at":"2023-03-26T10:06:21Z","who":{}}')
    assert read(TypedRecords(COLUMNS), *lines) == [
        ["a", None, None, None],
        [1_679_825_181_413_000, None, None, 1_679_825_181_000_000],
        [12_761, None, None, None],
        [18, None, None, None],
        [None, "x", None, None],
    ]


@pytest.mark.parametrize(
    "odd",
    [
        '{"id":7}',
        '{"at":{"d_date":"2023-03-26T10:06:21.413Z","more":1}}',
        '{"at":{"d_date":null}}',
        '{"at":"1582-10-10T00:00:00Z"}',
        '{"who":{"age":2147483648}}',
        '{"who":{"age":18.0}}',
        '{"who":[]}',
        '{"who":{"born":"now"}}',
        '{"id":"\\ud800"}',
        "[]",
        "{},{}",
    ],
)
def test_a_block_with_anything_else_is_left_to_be_read_in_full(odd: str) -> None:
    assert read(TypedRecords(COLUMNS), USUAL, odd) is None


def test_a_column_of_other_json_is_taken_by_its_text_from_the_second_block_on() -> None:
    reader = ColumnReader(COLUMNS)
    block = b'{"terms":[1.50,"\xc3\xa9"]}\n{"terms":"x"}\n{"terms":null}\n{"terms":-0}\n'
    expected = ['[1.50,"é"]', "x", None, "-0"]
    for _ in range(2):
        assert reader.read(block, 4)[-1] == expected
    typed = TypedRecords(COLUMNS)
    assert typed.read(block, 4) is None
    typed.take_as_text(("terms",))
    read_at_once = typed.read(block, 4)
    assert read_at_once is not None
    assert read_at_once[-1] == expected


def test_where_no_block_is_usual_it_is_no_longer_tried() -> None:
    typed = TypedRecords(COLUMNS)
    for _ in range(9):
        assert read(typed, '{"id":7}') is None
    assert read(typed, USUAL) is None


@pytest.mark.parametrize(
    "columns",
    [
        (column("whole", "x"), column("part", "x", "y")),
        (column("text", "x"), column("number", "x", type="int")),
        (column("quoted", 'x"y'),),
    ],
)
def test_paths_that_need_a_value_twice_are_read_in_full(columns: tuple[Any, ...]) -> None:
    assert read(TypedRecords(columns), "{}") is None
