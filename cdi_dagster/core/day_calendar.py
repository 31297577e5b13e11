"""Which storage days automation looks at, and when each is due and late. Pure; all moments are aware, UTC."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from cdi_dagster.core.days import days_before, due_at, latest_due_storage_day, storage_day_of, storage_days_between

SCHEDULE_OWNS = timedelta(seconds=60)
"""The schedule launches only within this time from the due moment; later it leaves the day to the sensor."""
SENSOR_OWNS_FROM = timedelta(seconds=120)
"""The sensor launches only from this time after the due moment, so the two never launch at the same moment."""


@dataclass(frozen=True, kw_only=True)
class DayCalendar:
    """The times of an installation.

    Attributes:
        first_storage_day: the first partition.
        due_time: when (UTC, on the export day) a storage day is due.
        late_time: when (UTC, on the export day) an unpublished day is late.
        look_back_days: how many due days automation looks at.
    """

    first_storage_day: date
    due_time: time
    late_time: time
    look_back_days: int

    @property
    def look_back(self) -> timedelta:
        """How far automation looks back."""
        return timedelta(days=self.look_back_days)

    def first_due_day(self, now: datetime) -> date:
        """Return the oldest storage day that automation launches."""
        return self._look_back_from(latest_due_storage_day(now, self.due_time))

    def due_days(self, now: datetime) -> list[date]:
        """Return the due storage days of the look-back, oldest first."""
        return storage_days_between(self.first_due_day(now), latest_due_storage_day(now, self.due_time))

    def late_days(self, now: datetime) -> list[date]:
        """Return the storage days of the look-back that are late unless they are published, oldest first."""
        last = latest_due_storage_day(now, self.late_time)
        return storage_days_between(self._look_back_from(last), last)

    def sensor_days(self, now: datetime) -> list[date]:
        """Return the due days that the sensor may launch, oldest first."""
        return [day for day in self.due_days(now) if self.sensor_owns(day, now)]

    def day_before_due(self, now: datetime) -> date | None:
        """Return yesterday's storage day while it is not due yet; None afterwards, or before the first day."""
        yesterday = storage_day_of(now.date())
        is_coming = self.first_storage_day <= yesterday and now < due_at(yesterday, self.due_time)
        return yesterday if is_coming else None

    def is_late(self, storage_day: date, now: datetime) -> bool:
        """Whether a day that is not published by now is late."""
        return now >= due_at(storage_day, self.late_time)

    def schedule_owns(self, storage_day: date, now: datetime) -> bool:
        """Whether the schedule may launch the day in a tick evaluated at `now`."""
        due = due_at(storage_day, self.due_time)
        return due <= now < due + SCHEDULE_OWNS

    def sensor_owns(self, storage_day: date, now: datetime) -> bool:
        """Whether the sensor may launch the day in a tick evaluated at `now`."""
        return now >= due_at(storage_day, self.due_time) + SENSOR_OWNS_FROM

    def _look_back_from(self, last: date) -> date:
        return max(self.first_storage_day, days_before(last, self.look_back_days - 1))
