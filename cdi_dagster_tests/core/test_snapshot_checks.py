"""What the checks of a snapshot find wrong: days without a change, an older newest day, id_parts that fell."""

from datetime import date, timedelta

import pytest

from cdi_dagster.core.snapshot_checks import fallen_id_parts, stale_content

FRIDAY = date(2023, 6, 9)
THURSDAY = date(2023, 6, 8)


def every_day(*, without: tuple[date, ...] = (), days: int = 40) -> dict[date, int]:
    found = {THURSDAY - timedelta(days=number): 5 for number in range(days)}
    return {day: count for day, count in found.items() if day not in without}


@pytest.mark.parametrize("days", [1, 7, 30, 40])
def test_content_of_every_day_until_the_snapshots_own_is_fresh_however_young_the_collection_is(days: int) -> None:
    assert stale_content(every_day(days=days), FRIDAY) == []


def test_days_without_a_change_are_named() -> None:
    lost = (date(2023, 6, 1), date(2023, 5, 20))
    (problem,) = stale_content(every_day(without=lost), FRIDAY)
    assert problem == "no id of the sample was last modified on 2 days: 2023-05-20, 2023-06-01"


def test_a_day_before_the_thirty_does_not_count() -> None:
    first = THURSDAY - timedelta(days=29)
    assert len(stale_content(every_day(without=(first,)), FRIDAY)) == 1
    assert stale_content(every_day(without=(first - timedelta(days=1),)), FRIDAY) == []


def test_a_newest_day_before_the_snapshots_own_is_named_and_one_after_it_does_not_help() -> None:
    modified = {**every_day(without=(THURSDAY,)), FRIDAY: 3}
    (problem,) = stale_content(modified, FRIDAY)
    assert (
        problem == "the newest _lastModifiedDateTime of the sample is of 2023-06-07, the snapshot's own is 2023-06-08"
    )
    assert stale_content({}, FRIDAY) == ["no id of the sample has a last modified date"]


def test_id_parts_that_fell_by_more_than_the_limit_are_named_with_their_rows() -> None:
    before = {"00": 100, "01": 100, "ff": 100}
    assert fallen_id_parts(before, {"00": 100, "01": 150, "ff": 100, "zz": 1}, most_percent=0) == []
    assert fallen_id_parts(before, {"00": 99, "01": 100}, most_percent=1) == [
        "the rows of 1 id_parts fell by more than 1 %: 'ff' from 100 to 0"
    ]
    assert fallen_id_parts({f"{n:02x}": 1 for n in range(256)}, {}, most_percent=0)[0].endswith("and 246 more")
