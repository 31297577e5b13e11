"""What a definition makes of a day: nulls and unparsable values of each column, paths that no column takes."""

from pathlib import Path

import pytest

from cdi_dagster.core.table_definition import Column
from cdi_dagster.published.read import require_published_parts
from cdi_dagster.spark.tables import profile
from cdi_dagster.spark.tables.profile import DayProfile, profile_day
from cdi_dagster.storage import open_storage
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.spark.tables.daily_records import DAY, publish_records

COLUMNS = (
    Column(name="a", path=("a",), type="bigint"),
    Column(name="b_c", path=("b", "c"), type="string"),
    Column(name="at", path=("at",), type="timestamp"),
)


def profile_of(tmp_path: Path, *parts: list[str]) -> DayProfile:
    published = open_storage((tmp_path / "published").as_uri())
    publish_records(published, *parts)
    return profile_day(published, require_published_parts(published, AUDIT.on(DAY)), COLUMNS)


def test_columns_and_paths_are_counted_over_all_parts(tmp_path: Path) -> None:
    first = ['{"a":1,"at":{"d_date":"2023-03-26T10:00:00.000Z"},"b":{"c":{"x":1}}}', '{"a":"12 pounds","b":{"d":[1]}}']
    second = ['{"b":{"c":null,"d":{}},"new":{"d_date":"2023-03-26T10:00:00.000Z"},"e":{"f":NaN}}']
    found = profile_of(tmp_path, first, second)
    assert found.records == 3
    assert [(column.name, column.nulls, column.unparsable) for column in found.columns] == [
        ("a", 2, 1),
        ("b_c", 2, 0),
        ("at", 2, 0),
    ]
    assert found.untaken == {("b", "d"): 2, ("e", "f"): 1, ("new",): 1}
    assert list(found.untaken) == [("b", "d"), ("e", "f"), ("new",)]
    assert (found.beyond, found.unwalked) == (0, 0)


def test_records_keyed_by_ids_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "MOST_PATHS", 3)
    found = profile_of(tmp_path, [f'{{"a":{number},"b":{{"id-{number}":1,"id-0":2}}}}' for number in range(10)])
    assert found.records == 10
    assert found.columns[0].nulls == 0
    assert found.untaken[("b", "id-0")] == 10
    assert len(found.untaken) == 3
    assert found.beyond == 7


def test_a_record_of_any_depth_is_read(tmp_path: Path) -> None:
    deep = '{"a":7,"x":' + "[" * 100_000 + "]" * 100_000 + "}"
    found = profile_of(tmp_path, [deep])
    assert (found.records, found.columns[0].nulls, found.unwalked) == (1, 0, 1)


def test_an_empty_day_has_no_records(tmp_path: Path) -> None:
    found = profile_of(tmp_path)
    assert (found.records, found.untaken) == (0, {})
