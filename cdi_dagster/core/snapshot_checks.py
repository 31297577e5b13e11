"""Whether a snapshot can be right: are its ids changed every day, and has no id_part lost ids. Pure: from marks.

Each function returns what is wrong, as sentences; nothing wrong is an empty list.
"""

from collections.abc import Mapping
from datetime import date

from cdi_dagster.core.days import days_before, storage_day_of, storage_days_between
from cdi_dagster.core.snapshot import days_in_words

FRESH_DAYS = 30
"""The storage days before a snapshot on each of which something must have changed."""

_NAMED_ID_PARTS = 10


def stale_content(modified: Mapping[date, int], export_day: date) -> list[str]:
    """Name the days on which no id of the sample was modified, and a newest day that is not the snapshot's own.

    Args:
        modified: how many ids of the sample were last modified on each day.
        export_day: of the snapshot.
    """
    last = storage_day_of(export_day)
    until_then = [day for day, count in modified.items() if count and day <= last]
    if not until_then:
        return ["no id of the sample has a last modified date"]
    problems = []
    newest = max(until_then)
    if newest != last:
        problems.append(f"the newest _lastModifiedDateTime of the sample is of {newest}, the snapshot's own is {last}")
    # A collection that began later than 30 days ago has no days before.
    first = max(days_before(last, FRESH_DAYS - 1), min(until_then))
    empty = [day for day in storage_days_between(first, newest) if not modified.get(day)]
    if empty:
        problems.append(f"no id of the sample was last modified on {len(empty)} days: {days_in_words(empty)}")
    return problems


def fallen_id_parts(before: Mapping[str, int], now: Mapping[str, int], *, most_percent: float) -> list[str]:
    """Name the id_parts that have fewer rows than in the snapshot before, by more than so many percent.

    Deleted ids stay, so nothing should ever fall.
    """
    fallen = [
        f"{id_part!r} from {rows} to {now.get(id_part, 0)}"
        for id_part, rows in sorted(before.items())
        if now.get(id_part, 0) < rows * (1 - most_percent / 100)
    ]
    if not fallen:
        return []
    more = len(fallen) - _NAMED_ID_PARTS
    named = ", ".join(fallen[:_NAMED_ID_PARTS]) + (f" and {more} more" if more > 0 else "")
    return [f"the rows of {len(fallen)} id_parts fell by more than {most_percent:g} %: {named}"]
