"""A listing that has not changed for long enough is complete; it takes two reads."""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from cdi_dagster.coalescer_status.quiet_listing import QuietListingCoalescerStatus
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.storage import open_storage
from cdi_dagster.storage.roots import Roots
from cdi_dagster_tests.collections import AUDIT

DAY = date(2023, 3, 26)
KEY = f"{AUDIT.on(DAY).corporate_prefix}data.businessAudit_0_0-9.jsonl.gz"
START = datetime(2023, 3, 27, 6, 0, tzinfo=UTC)
QUIET = timedelta(minutes=30)


class Place:
    """A corporate and a published folder, a clock that the test turns, and objects with times of its own."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.folder = folder
        self.corporate = open_storage((folder / "corporate").as_uri())
        self.published = open_storage((folder / "published").as_uri())

    def put(self, key: str = KEY, *, at: datetime | None = None, content: bytes = b"x") -> None:
        self.corporate.write(key, content)
        moment = (at or self.now).timestamp()
        os.utime(self.folder / "corporate" / key, (moment, moment))

    def look(self, after: timedelta = timedelta()) -> CoalescerState:
        self.now += after
        # A source of its own for every look: what is remembered must outlive the process.
        source = QuietListingCoalescerStatus(
            Roots(corporate=self.corporate, published=self.published),
            quiet_seconds=QUIET.total_seconds(),
            clock=lambda: self.now,
        )
        status = source.status(AUDIT.on(DAY))
        self.reason = status.reason
        return status.state


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_one_read_proves_nothing_however_old_the_objects_are(place: Place) -> None:
    place.put(at=START - timedelta(days=3))
    assert place.look() is CoalescerState.RUNNING


def test_the_same_listing_after_the_quiet_time_is_complete(place: Place) -> None:
    place.put(at=START - timedelta(hours=1))
    place.look()
    assert place.look(after=QUIET - timedelta(seconds=1)) is CoalescerState.RUNNING
    assert "29 min of the 30 min" in place.reason
    assert place.look(after=timedelta(seconds=1)) is CoalescerState.COMPLETE


@pytest.mark.parametrize("change", ["added", "removed", "written again"])
def test_any_change_starts_the_quiet_time_again(place: Place, change: str) -> None:
    other = KEY.replace("0-9", "10-19")
    place.put(at=START - timedelta(hours=1))
    place.put(other, at=START - timedelta(hours=1))
    place.look()
    if change == "removed":
        place.corporate.delete([other])
    else:
        name = KEY.replace("0-9", "20-29") if change == "added" else other
        place.put(name, content=b"yy", at=START - timedelta(hours=1))
    assert place.look(after=QUIET) is CoalescerState.RUNNING
    assert place.look(after=QUIET) is CoalescerState.COMPLETE


def test_a_young_object_keeps_the_gate_closed(place: Place) -> None:
    place.look()
    place.put(at=START + QUIET)
    place.look(after=timedelta(minutes=1))
    assert place.look(after=QUIET) is CoalescerState.RUNNING
    assert place.look(after=QUIET) is CoalescerState.COMPLETE


def test_nothing_at_all_has_not_started(place: Place) -> None:
    assert place.look() is CoalescerState.NOT_STARTED
    assert place.look(after=QUIET * 2) is CoalescerState.NOT_STARTED


def test_a_clock_that_was_set_back_proves_nothing(place: Place) -> None:
    place.put(at=START - timedelta(days=1))
    place.look()
    place.look(after=-timedelta(hours=5))
    assert place.look(after=QUIET - timedelta(minutes=1)) is CoalescerState.RUNNING


def test_an_unreadable_observation_only_waits_longer(place: Place) -> None:
    place.put(at=START - timedelta(days=1))
    place.look()
    [memory] = [stored.key for stored in place.published.list("corporate_data_ingestion/_control/")]
    place.published.write(memory, b"{")
    assert place.look(after=QUIET) is CoalescerState.RUNNING
    assert place.look(after=QUIET) is CoalescerState.COMPLETE
