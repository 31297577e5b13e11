"""Which days a snapshot takes in, from which base, and which snapshots are stale."""

from datetime import date, timedelta

import pytest

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.snapshot import (
    MadeSnapshot,
    SnapshotBase,
    SnapshotInput,
    daily_rows_identity,
    first_snapshot_day,
    groups_of_id_parts,
    require_snapshot_day,
    snapshot_days,
    snapshot_input,
    stale_snapshots,
    week_of,
)

PARTS = find_collection("calculator:calculationParts")
FIRST_DAY = date(2023, 5, 30)  # a Tuesday
FRIDAYS = [date(2023, 6, day) for day in (2, 9, 16, 23)]


def rows_until(export_day: date, **changed: str) -> dict[date, str]:
    """Rows of every day from the first on; `changed` has other ones by `d<month>_<day>`."""
    days = [FIRST_DAY + timedelta(days=number) for number in range((export_day - FIRST_DAY).days)]
    return {day: changed.get(f"d{day.month}_{day.day}", f"rows of {day}") for day in days}


def made_in_order(*export_days: date, rows: dict[date, str]) -> list[MadeSnapshot]:
    made: list[MadeSnapshot] = []
    for export_day in export_days:
        used = snapshot_input(PARTS, export_day, made, rows, first_storage_day=FIRST_DAY)
        made.append(MadeSnapshot(export_day=export_day, fingerprint=used.fingerprint, made_from=used))
    return made


def test_a_snapshot_of_a_friday_adds_the_storage_days_from_friday_to_thursday() -> None:
    days = week_of(date(2024, 3, 1))  # over a leap day
    assert [f"{day:%a %d}" for day in days] == ["Fri 23", "Sat 24", "Sun 25", "Mon 26", "Tue 27", "Wed 28", "Thu 29"]


@pytest.mark.parametrize(
    ("first_storage_day", "first"),
    [
        ("2023-06-02", "2023-06-09"),
        ("2023-06-01", "2023-06-09"),
        ("2023-06-03", "2023-06-16"),
        ("2023-05-27", "2023-06-09"),
    ],
)
def test_the_first_snapshot_has_a_whole_week_of_days(first_storage_day: str, first: str) -> None:
    found = first_snapshot_day(date.fromisoformat(first_storage_day))
    assert str(found) == first
    assert week_of(found)[0] >= date.fromisoformat(first_storage_day) > week_of(found - timedelta(days=7))[0]


def test_the_fridays_up_to_a_day_are_its_own_or_those_before() -> None:
    assert snapshot_days(date(2023, 6, 9), weeks=2) == [date(2023, 6, 2), date(2023, 6, 9)]
    assert snapshot_days(date(2023, 6, 8), weeks=2) == [date(2023, 5, 26), date(2023, 6, 2)]
    assert snapshot_days(date(2023, 6, 10), weeks=1) == [date(2023, 6, 9)]


def test_another_day_than_a_friday_is_refused_with_the_friday_before() -> None:
    require_snapshot_day(date(2023, 6, 9))
    with pytest.raises(CdiError, match="2023-06-08 is a Thursday") as refused:
        require_snapshot_day(date(2023, 6, 8))
    assert "2023-06-02" in (refused.value.next_step or "")


def test_the_first_snapshot_has_no_base_and_all_days_since_the_first() -> None:
    used = snapshot_input(PARTS, FRIDAYS[0], [], rows_until(FRIDAYS[0]), first_storage_day=FIRST_DAY)
    assert used.base is None
    assert list(used.days) == [date(2023, 5, 30), date(2023, 5, 31), date(2023, 6, 1)]


def test_the_next_one_begins_after_the_newest_before_it() -> None:
    rows = rows_until(FRIDAYS[3])
    made = made_in_order(*FRIDAYS, rows=rows)
    for before, snapshot in zip(made, made[1:], strict=False):
        used = snapshot.made_from
        assert used is not None
        assert used.base == SnapshotBase(export_day=before.export_day, fingerprint=before.fingerprint)
        assert list(used.days) == week_of(snapshot.export_day)
    assert stale_snapshots(made, rows) == frozenset()


def test_a_snapshot_after_a_week_without_one_takes_in_both_weeks() -> None:
    rows = rows_until(FRIDAYS[2])
    used = snapshot_input(PARTS, FRIDAYS[2], made_in_order(FRIDAYS[0], rows=rows), rows, first_storage_day=FIRST_DAY)
    assert list(used.days) == week_of(FRIDAYS[1]) + week_of(FRIDAYS[2])


def test_days_that_are_missing_stop_it_and_are_all_named() -> None:
    rows = rows_until(FRIDAYS[1])
    made = made_in_order(FRIDAYS[0], rows=rows)
    del rows[date(2023, 6, 3)], rows[date(2023, 6, 8)]
    with pytest.raises(CdiError, match="2 storage days: 2023-06-03, 2023-06-08") as refused:
        snapshot_input(PARTS, FRIDAYS[1], made, rows, first_storage_day=FIRST_DAY)
    assert refused.value.failure_class is FailureClass.INPUT_INVALID
    assert "after the snapshot of 2023-06-02" in refused.value.cause
    assert refused.value.detail["missing_days"] == ["2023-06-03", "2023-06-08"]


def test_a_snapshot_before_the_first_day_takes_in_nothing_and_is_refused() -> None:
    with pytest.raises(CdiError, match="would take in no day"):
        snapshot_input(PARTS, date(2023, 5, 26), [], {}, first_storage_day=FIRST_DAY)


def test_a_late_day_makes_its_snapshot_stale_and_all_that_are_built_on_it() -> None:
    made = made_in_order(*FRIDAYS, rows=rows_until(FRIDAYS[3]))
    late = rows_until(FRIDAYS[3], d6_5="other rows")
    assert stale_snapshots(made, late) == frozenset(FRIDAYS[1:])


def test_a_stale_snapshot_is_no_base_the_one_before_it_is() -> None:
    made = made_in_order(*FRIDAYS[:3], rows=rows_until(FRIDAYS[3]))
    late = rows_until(FRIDAYS[3], d6_5="other rows")
    used = snapshot_input(PARTS, FRIDAYS[3], made, late, first_storage_day=FIRST_DAY)
    assert used.base is not None
    assert used.base.export_day == FRIDAYS[0]
    assert list(used.days) == week_of(FRIDAYS[1]) + week_of(FRIDAYS[2]) + week_of(FRIDAYS[3])


def test_rebuilding_one_leaves_those_built_on_the_earlier_one_stale_until_they_follow() -> None:
    made = made_in_order(*FRIDAYS[:3], rows=rows_until(FRIDAYS[3]))
    late = rows_until(FRIDAYS[3], d6_5="other rows")
    rebuilt = snapshot_input(PARTS, FRIDAYS[1], made, late, first_storage_day=FIRST_DAY)
    made[1] = MadeSnapshot(export_day=FRIDAYS[1], fingerprint=rebuilt.fingerprint, made_from=rebuilt)
    assert stale_snapshots(made, late) == {FRIDAYS[2]}
    again = snapshot_input(PARTS, FRIDAYS[2], made, late, first_storage_day=FIRST_DAY)
    made[2] = MadeSnapshot(export_day=FRIDAYS[2], fingerprint=again.fingerprint, made_from=again)
    assert stale_snapshots(made, late) == frozenset()


def test_days_and_bases_that_were_deleted_since_prove_nothing() -> None:
    made = made_in_order(*FRIDAYS, rows=rows_until(FRIDAYS[3]))
    assert stale_snapshots(made[2:], {}) == frozenset()


def test_an_adopted_snapshot_is_a_base_as_any_other() -> None:
    adopted = MadeSnapshot(export_day=FRIDAYS[1], fingerprint="of its files", made_from=None)
    used = snapshot_input(PARTS, FRIDAYS[2], [adopted], rows_until(FRIDAYS[2]), first_storage_day=FIRST_DAY)
    assert used.base == SnapshotBase(export_day=FRIDAYS[1], fingerprint="of its files")
    assert list(used.days) == week_of(FRIDAYS[2])


def test_the_fingerprint_is_of_base_and_days_in_any_order() -> None:
    base, days = SnapshotBase(export_day=FRIDAYS[0], fingerprint="a"), {FRIDAYS[0]: "1", FRIDAYS[1]: "2"}
    one = SnapshotInput(base=base, days=days).fingerprint
    assert one == SnapshotInput(base=base, days=dict(reversed(days.items()))).fingerprint
    assert (
        len({one, SnapshotInput(base=None, days=days).fingerprint, SnapshotInput(base=base, days={}).fingerprint}) == 3
    )


def test_rows_that_were_replayed_are_other_rows_of_the_same_input() -> None:
    assert daily_rows_identity("f", 10) != daily_rows_identity("f", 11)


def test_id_parts_are_grouped_in_order_up_to_the_limit() -> None:
    sizes = {"02": 4, "00": 5, "01": 5, "03": 20, "04": 1}
    assert groups_of_id_parts(sizes, most_bytes=10) == [["00", "01"], ["02"], ["03"], ["04"]]
    assert groups_of_id_parts({}, most_bytes=10) == []
