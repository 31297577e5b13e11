"""Storage days, export days and when they are due: both sides of midnight, month ends, leap days, clock changes."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_dagster.core.days import (
    day_ends_at,
    due_at,
    export_day_of,
    latest_due_storage_day,
    parse_day,
    storage_day_of,
    storage_days_between,
)

DAYS = st.dates(min_value=date(1970, 1, 2), max_value=date(2200, 1, 1))


@pytest.mark.parametrize(
    ("storage_day", "export_day"),
    [
        (date(2023, 3, 26), date(2023, 3, 27)),
        (date(2023, 2, 28), date(2023, 3, 1)),
        (date(2024, 2, 28), date(2024, 2, 29)),
        (date(2024, 2, 29), date(2024, 3, 1)),
        (date(2023, 12, 31), date(2024, 1, 1)),
    ],
)
def test_export_day_is_the_day_after_the_storage_day(storage_day: date, export_day: date) -> None:
    assert export_day_of(storage_day) == export_day
    assert storage_day_of(export_day) == storage_day


@given(DAYS)
def test_storage_day_and_export_day_are_inverse(day: date) -> None:
    assert storage_day_of(export_day_of(day)) == day


@given(DAYS)
def test_a_day_reads_back_as_it_was_written(day: date) -> None:
    assert parse_day(day.isoformat()) == day


@pytest.mark.parametrize(
    "text", ["", "2023-3-1", "20230301", "2023-02-30", "yesterday", "2023-03-01T00:00", "2023-W10-1"]
)
def test_a_wrong_day_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        parse_day(text)


@pytest.mark.parametrize("text", ["0001-01-01", "1969-12-31", "3000-01-01", "9999-12-31"])
def test_a_day_from_which_no_other_day_can_be_counted_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text} .* write one of the years 1970 to 2999"):
        parse_day(text)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (datetime(2023, 3, 27, 9, 29, 59, tzinfo=UTC), date(2023, 3, 25)),
        (datetime(2023, 3, 27, 9, 30, tzinfo=UTC), date(2023, 3, 26)),
        (datetime(2023, 3, 27, 23, 59, 59, tzinfo=UTC), date(2023, 3, 26)),
        (datetime(2023, 3, 28, 0, 0, tzinfo=UTC), date(2023, 3, 26)),
        (datetime(2024, 3, 1, 9, 30, tzinfo=UTC), date(2024, 2, 29)),
        # London is an hour ahead of UTC after the last Sunday of March: 10:29 there is still before 09:30 UTC.
        (datetime(2023, 3, 27, 10, 29, tzinfo=ZoneInfo("Europe/London")), date(2023, 3, 25)),
        (datetime(2023, 3, 27, 10, 30, tzinfo=ZoneInfo("Europe/London")), date(2023, 3, 26)),
        (datetime(2023, 10, 30, 9, 30, tzinfo=ZoneInfo("Europe/London")), date(2023, 10, 29)),
    ],
)
def test_the_latest_due_day_changes_at_the_due_time_in_utc(now: datetime, expected: date) -> None:
    assert latest_due_storage_day(now) == expected


def test_a_naive_clock_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        latest_due_storage_day(datetime(2023, 3, 27, 9, 30))  # noqa: DTZ001 - naive on purpose


@given(
    st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)),  # noqa: DTZ001 - zone added below
    st.integers(-14 * 60, 14 * 60),
    st.times(),
)
def test_a_day_is_due_exactly_when_its_due_moment_has_come(naive: datetime, offset: int, due: time) -> None:
    now = naive.replace(tzinfo=timezone(timedelta(minutes=offset)))
    day = latest_due_storage_day(now, due)
    assert due_at(day, due) <= now < due_at(day + timedelta(days=1), due)


def test_days_between_include_both_ends_and_may_be_empty() -> None:
    assert storage_days_between(date(2024, 2, 28), date(2024, 3, 1)) == [
        date(2024, 2, 28),
        date(2024, 2, 29),
        date(2024, 3, 1),
    ]
    assert storage_days_between(date(2024, 3, 2), date(2024, 3, 1)) == []


def test_a_storage_day_ends_at_midnight_utc_before_it_is_due() -> None:
    assert day_ends_at(date(2024, 2, 29)) == datetime(2024, 3, 1, tzinfo=UTC)
    assert day_ends_at(date(2023, 3, 26)) < due_at(date(2023, 3, 26))
