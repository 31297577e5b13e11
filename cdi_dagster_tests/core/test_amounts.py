"""Durations and sizes have one spelling."""

from datetime import timedelta

import pytest

from cdi_dagster.core.amounts import duration_text, size_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (6120, "1 h 42 min"),
    ],
)
def test_a_duration_is_written_in_the_unit_that_a_reader_wants(seconds: int, text: str) -> None:
    assert duration_text(seconds) == duration_text(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (3_400_000, "3.4 MB"), (5e12, "5.0 TB")],
)
def test_sizes_are_powers_of_ten(size: float, text: str) -> None:
    assert size_text(size) == text
