"""The facts about a snapshot are those by which its job decides, whichever earlier snapshots are stale."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from cdi_dagster.published.snapshot_facts import read_snapshot
from cdi_dagster.published.snapshots import input_now
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.scripted_snapshot import PARTS, make_snapshot, publish_days

FIRST_DAY, FIRST, LAST, ONE_WEEK = date(2023, 5, 5), date(2023, 5, 12), date(2023, 7, 7), timedelta(weeks=1)


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
