"""A UTC time of day as local clocks show it: in a British summer they are an hour ahead. Pure."""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo


def on_the_wall(utc_time: time, zone_name: str) -> str:
    """Return what local clocks show at a UTC time of day: `09:30 GMT in winter, 10:30 BST in summer`.

    Args:
        utc_time: hour and minute, UTC.
        zone_name: of the time zone database, for example `Europe/London`.
    """
    zone = ZoneInfo(zone_name)
    # 2024 stands for any year: its January and July are on either side of the change, wherever there is one.
    shown = [
        datetime(2024, month, 15, utc_time.hour, utc_time.minute, tzinfo=UTC).astimezone(zone).strftime("%H:%M %Z")
        for month in (1, 7)
    ]
    january, july = shown
    if january == july:
        return f"{january} in {zone_name}"
    northern = datetime(2024, 7, 15, tzinfo=zone).dst()
    winter, summer = (january, july) if northern else (july, january)
    return f"{winter} in winter and {summer} in summer in {zone_name}"
