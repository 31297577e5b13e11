"""A million objects in shards, simulated from what was measured: the goal, and what bounds it."""

import pytest

from benchmarks.coalescer_simulation import S3_OF_ONE_PREFIX, Costs, main, seconds_of_a_day, uneven_partitions

MILLION = uneven_partitions(1_000_000, 64)


def test_a_million_objects_take_under_five_minutes_on_16_cores() -> None:
    assert seconds_of_a_day(MILLION, 16, Costs()) < 300


def test_one_process_takes_what_its_core_takes() -> None:
    busy = sum(MILLION) * Costs().cpu_seconds_an_object + sum(MILLION) / 1000 * Costs().list_seconds_a_page
    assert seconds_of_a_day(MILLION, 1, Costs()) == pytest.approx(busy, rel=0.05)


def test_what_the_storage_allows_bounds_any_number_of_processes() -> None:
    least = sum(MILLION) / S3_OF_ONE_PREFIX.deletes_a_second
    assert least < seconds_of_a_day(MILLION, 64, S3_OF_ONE_PREFIX) < 2 * least


def test_the_largest_kafka_partition_bounds_it_where_they_differ() -> None:
    skewed = [500_000, *[10_000] * 50]
    assert seconds_of_a_day(skewed, 16, Costs()) > 500_000 * Costs().cpu_seconds_an_object


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--objects", "20000"]) == 0
    assert capsys.readouterr().out.count("\n") == 5
