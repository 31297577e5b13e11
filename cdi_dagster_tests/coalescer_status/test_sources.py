"""Whichever source is chosen, the gate of a day that is not over stays closed."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from cdi_dagster.coalescer.claim import Claim
from cdi_dagster.coalescer.run import coalesce
from cdi_dagster.coalescer_status.sources import coalescer_source
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus, require_open
from cdi_dagster.storage import open_storage
from cdi_dagster.storage.roots import Roots
from cdi_dagster_tests.collections import AUDIT

DAY = date(2023, 3, 26)
MIDNIGHT = datetime(2023, 3, 27, tzinfo=UTC)


def status_at(folder: Path, now: datetime, *, runs_coalesce: bool = False) -> CoalescerStatus:
    corporate, published = (open_storage((folder / name).as_uri()) for name in ("corporate", "published"))
    source = coalescer_source(
        "marker",
        Roots(corporate=corporate, published=published),
        lease_seconds=120,
        quiet_seconds=60,
        runs_coalesce=runs_coalesce,
        clock=lambda: now,
    )
    return source.status(AUDIT.on(DAY))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (MIDNIGHT - timedelta(seconds=1), CoalescerState.NOT_STARTED),
        (MIDNIGHT, CoalescerState.COMPLETE),
        (MIDNIGHT + timedelta(days=400), CoalescerState.COMPLETE),
    ],
)
def test_a_day_opens_only_once_it_is_over(tmp_path: Path, now: datetime, expected: CoalescerState) -> None:
    coalesce(open_storage((tmp_path / "corporate").as_uri()), AUDIT.on(DAY))
    status = status_at(tmp_path, now)
    assert status.state is expected
    if expected is CoalescerState.NOT_STARTED:
        assert status.reason == "storage day 2023-03-26 is not over: K2HB writes to it until 2023-03-27 00:00 UTC"
        with pytest.raises(CdiError) as closed:
            require_open(status)
        assert "Wait until the day is over" in closed.value.next_step


def test_a_run_coalesces_a_day_that_is_over_and_that_nobody_works_on_where_runs_do(tmp_path: Path) -> None:
    corporate = open_storage((tmp_path / "corporate").as_uri())
    corporate.write(f"{AUDIT.on(DAY).corporate_prefix}data.businessAudit_0_0-4.jsonl.gz", b"x")

    def coalesces(now: datetime = MIDNIGHT) -> bool:
        return status_at(tmp_path, now, runs_coalesce=True).run_coalesces

    assert coalesces()
    assert not status_at(tmp_path, MIDNIGHT).run_coalesces
    assert not coalesces(MIDNIGHT - timedelta(seconds=1))
    with Claim(corporate, AUDIT.on(DAY), clock=lambda: MIDNIGHT) as claim:
        assert not coalesces()
        assert coalesces(MIDNIGHT + timedelta(minutes=5))  # it was killed
        claim.fail("a batch failed")
    assert coalesces()
    coalesce(corporate, AUDIT.on(DAY))
    assert not coalesces()
