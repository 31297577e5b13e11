"""The facts about a snapshot are those by which its job decides, whichever earlier snapshots are stale."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from cdi_dagster.core.days import storage_days_between
from cdi_dagster.core.storage_keys import SUCCESS_MARK, snapshot_prefix
from cdi_dagster.published.snapshot_facts import read_snapshot
from cdi_dagster.published.snapshots import adopt_snapshot, input_now, snapshot_of
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.scripted_snapshot import PARTS, make_snapshot, publish_days

FIRST_DAY, FIRST, LAST, ONE_WEEK = date(2023, 5, 5), date(2023, 5, 12), date(2023, 7, 7), timedelta(weeks=1)


def mark_key(export_day: date) -> str:
    return f"{snapshot_prefix(snapshot_of(PARTS, export_day))}{SUCCESS_MARK}"


@pytest.fixture
def published(tmp_path: Path) -> Storage:
    """Daily rows since the first day, and the snapshots of all Fridays but the last."""
    storage = open_storage((tmp_path / "published").as_uri())
    publish_days(storage, FIRST_DAY, LAST - timedelta(days=1))
    for week in range((LAST - FIRST) // ONE_WEEK):
        make_snapshot(storage, FIRST + week * ONE_WEEK, first_storage_day=FIRST_DAY)
    return storage


@pytest.mark.parametrize("weeks_ago", [1, 2, 3, 4])
def test_where_rows_were_published_again_it_waits_for_no_day_that_is_there(published: Storage, weeks_ago: int) -> None:
    again = LAST - weeks_ago * ONE_WEEK - timedelta(days=3)
    publish_days(published, again, again, fingerprint="f2")
    facts, mark = read_snapshot(published, PARTS, LAST, FIRST_DAY, tables=False)
    assert (mark, facts.missing_days, facts.unreadable) == (None, (), None)
    used, _ = input_now(published, PARTS, LAST, first_storage_day=FIRST_DAY)
    base = used.base.export_day if used.base else None
    assert base == LAST - (weeks_ago + 1) * ONE_WEEK


def test_where_the_base_is_gone_it_is_made_of_all_days_since_the_first(published: Storage) -> None:
    made = FIRST + ONE_WEEK
    published.delete([mark_key(FIRST)])
    for friday in (FIRST + week * ONE_WEEK for week in range(2, (LAST - FIRST) // ONE_WEEK)):
        published.delete([mark_key(friday)])
    again = made - timedelta(days=3)
    publish_days(published, again, again, fingerprint="f2")
    facts, _ = read_snapshot(published, PARTS, made, FIRST_DAY, tables=False)
    assert (facts.is_stale, facts.missing_days) == (True, ())
    used, _ = input_now(published, PARTS, made, first_storage_day=FIRST_DAY)
    assert (used.base, list(used.days)) == (None, storage_days_between(FIRST_DAY, made - timedelta(days=1)))


def test_where_only_an_older_base_is_left_the_days_since_that_are_taken_in(published: Storage) -> None:
    made, before = FIRST + 2 * ONE_WEEK, FIRST + ONE_WEEK
    day = snapshot_of(PARTS, FIRST)
    published.delete([mark_key(before), mark_key(FIRST)])
    published.write(f"{snapshot_prefix(day)}id_part=0a/part-0.orc", b"12345")
    adopt_snapshot(published, PARTS, FIRST, correlation_id="adopted", now=datetime(2023, 5, 12, tzinfo=UTC))
    again = made - timedelta(days=3)
    publish_days(published, again, again, fingerprint="f2")
    facts, _ = read_snapshot(published, PARTS, made, FIRST_DAY, tables=False)
    assert (facts.is_stale, facts.missing_days) == (True, ())
    used, _ = input_now(published, PARTS, made, first_storage_day=FIRST_DAY)
    assert used.base is not None
    assert used.base.export_day == FIRST
    assert list(used.days) == storage_days_between(FIRST, made - timedelta(days=1))
