from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi_dagster.core.day_calendar import DayCalendar

DAY = date(2023, 3, 26)
CALENDAR = DayCalendar(
    first_storage_day=date(2023, 3, 20), due_time=time(9, 30), late_time=time(12, 0), look_back_days=3
)


def at(day: date, text: str) -> datetime:
    return datetime.combine(day, time.fromisoformat(text), tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "schedule", "sensor"),
    [
        ("09:29:59", False, False),
        ("09:30:00", True, False),
        ("09:30:59", True, False),
        ("09:31:00", False, False),
        ("09:31:59", False, False),
        ("09:32:00", False, True),
        ("23:59:59", False, True),
    ],
)
def test_the_schedule_owns_the_first_minute_and_the_sensor_all_from_the_third(at, schedule, sensor):
    now = datetime.combine(date(2023, 3, 27), time.fromisoformat(at), tzinfo=UTC)
    assert CALENDAR.schedule_owns(DAY, now) is schedule
    assert CALENDAR.sensor_owns(DAY, now) is sensor


@given(seconds=st.integers(-200_000, 200_000))
def test_no_moment_belongs_to_both(seconds):
    now = datetime(2024, 3, 1, 9, 30, tzinfo=UTC) + timedelta(seconds=seconds)
    day = date(2024, 2, 29)
    assert not (CALENDAR.schedule_owns(day, now) and CALENDAR.sensor_owns(day, now))


@pytest.mark.parametrize(
    ("now", "due", "late"),
    [
        (at(date(2023, 3, 27), "09:29:59"), [23, 24, 25], [23, 24, 25]),
        (at(date(2023, 3, 27), "09:30:00"), [24, 25, 26], [23, 24, 25]),
        (at(date(2023, 3, 27), "12:00:00"), [24, 25, 26], [24, 25, 26]),
        (at(date(2023, 3, 21), "12:00:00"), [20], [20]),
        (at(date(2023, 3, 20), "12:00:00"), [], []),
    ],
)
def test_the_look_back_ends_at_the_latest_due_day_and_begins_no_earlier_than_the_first(now, due, late):
    assert [day.day for day in CALENDAR.due_days(now)] == due
    assert [day.day for day in CALENDAR.late_days(now)] == late
    assert [day for day in CALENDAR.late_days(now) if not CALENDAR.is_late(day, now)] == []


def test_over_a_leap_day_the_look_back_has_every_day():
    calendar = DayCalendar(
        first_storage_day=date(2023, 1, 1), due_time=time(9, 30), late_time=time(12, 0), look_back_days=3
    )
    now = at(date(2024, 3, 2), "09:30:00")
    assert calendar.due_days(now) == [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]
    assert calendar.first_due_day(now) == date(2024, 2, 28)


@pytest.mark.parametrize(
    ("now", "coming"),
    [
        (at(date(2023, 3, 27), "00:00:00"), DAY),
        (at(date(2023, 3, 27), "09:29:59"), DAY),
        (at(date(2023, 3, 27), "09:30:00"), None),
        (at(date(2023, 3, 20), "00:00:00"), None),
    ],
)
def test_before_it_is_due_yesterday_is_still_to_come(now, coming):
    assert CALENDAR.day_before_due(now) == coming
