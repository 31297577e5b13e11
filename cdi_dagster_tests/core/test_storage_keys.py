"""Tests of the keys that readers outside know: where the rows of keyed collections lie."""

from datetime import date

import pytest

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.storage_keys import (
    daily_rows_prefix,
    id_part_folder,
    id_part_of,
    snapshot_prefix,
    snapshot_staging_prefix,
)


def test_rows_of_a_day_lie_under_its_export_day_without_leading_zeros() -> None:
    day = find_collection("calculator:calculationParts").on(date(2023, 6, 2))
    assert daily_rows_prefix(day) == (
        "corporate_data_ingestion/orc/daily/calculator/calculationParts/export_year=2023/export_month=6/export_day=3/"
    )


@pytest.mark.parametrize(
    ("id_part", "folder"),
    [
        ("0a", "id_part=0a/"),
        ("AB", "id_part=AB/"),
        ("a/", "id_part=a%2F/"),
        ("%:", "id_part=%25%3A/"),
        ("[]", "id_part=%5B%5D/"),
        ("\n\\", "id_part=%0A%5C/"),
        ("\0\x7f", "id_part=%00%7F/"),
        ("..", "id_part=../"),
        (" é", "id_part= é/"),
    ],
)
def test_folders_of_an_id_part_are_escaped_as_hive_does(id_part: str, folder: str) -> None:
    assert id_part_folder(id_part) == folder
    assert id_part_of(f"exports/{folder}part-00000.orc") == id_part


def test_a_key_beside_the_folders_of_id_parts_has_none() -> None:
    assert id_part_of("exports/calculator/calculationParts/2023-06-09/_SUCCESS") is None
    assert id_part_of("_SUCCESS") is None


def test_a_snapshot_lies_under_its_export_day_and_is_written_beside_the_published_ones() -> None:
    day = find_collection("calculator:calculationParts").on(date(2023, 6, 8))
    assert snapshot_prefix(day) == "corporate_data_ingestion/exports/calculator/calculationParts/2023-06-09/"
    assert "/exports/calculator/" not in snapshot_staging_prefix(day).replace("/_staging/exports/calculator/", "")
