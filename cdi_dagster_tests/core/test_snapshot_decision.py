"""When a snapshot is made: once its days are there, again where it is stale, and after failures as a day is."""

from datetime import UTC, date, datetime, time, timedelta

import pytest

from cdi_dagster.core.day_calendar import DayCalendar
from cdi_dagster.core.failures import FailureClass
from cdi_dagster.core.launch_decision import LaunchAction, PastRun, RunState
from cdi_dagster.core.snapshot_decision import SnapshotFacts, decide_snapshot, due_snapshots, to_launch

FRIDAY, NEXT = date(2023, 6, 9), date(2023, 6, 16)
NOW = datetime(2023, 6, 9, 12, tzinfo=UTC)
LAUNCH = f"{FRIDAY}|f"
CALENDAR = DayCalendar(first_storage_day=date(2023, 6, 2), due_time=time(9, 30), late_time=time(12), look_back_days=14)


def run(state: RunState, **values: object) -> PastRun:
    return PastRun(state=state, **{"run_id": "r1", "launch": LAUNCH, "ended_at": NOW - timedelta(hours=1), **values})  # type: ignore[arg-type]


def decided(**values: object) -> tuple[LaunchAction, str]:
    decision = decide_snapshot(SnapshotFacts(export_day=FRIDAY, **{"fingerprint": "f", **values}), NOW)  # type: ignore[arg-type]
    return decision.action, decision.reason


def test_it_is_made_when_its_days_are_there_and_waits_for_those_that_are_not() -> None:
    assert decided() == (LaunchAction.LAUNCH, "its days are there")
    waits = decided(fingerprint=None, missing_days=(date(2023, 6, 4), date(2023, 6, 8)))
    assert waits == (LaunchAction.WAIT, "waits for the daily rows of 2023-06-04, 2023-06-08")


def test_it_is_made_once_and_again_only_where_it_is_stale() -> None:
    assert decided(is_published=True) == (LaunchAction.DONE, "published")
    action, reason = decided(is_published=True, is_stale=True)
    assert action is LaunchAction.LAUNCH
    assert reason.startswith("stale")


def test_what_a_failed_run_published_is_run_again_until_it_is_recorded() -> None:
    lost = run(RunState.FAILED, failure_class=FailureClass.WORKER_LOST, run_id="lost")
    other = run(RunState.FAILED, failure_class=FailureClass.INTERRUPTED)
    published = {"is_published": True, "unrecorded": lost}
    again = (LaunchAction.LAUNCH, "again: run lost published it, and failed with WORKER_LOST before that was recorded")
    for runs in ((lost,), (lost, other)):
        assert decided(runs=runs, **published) == again
        assert decided(runs=runs, missing_tables=("uc.parts",), **published) == again
        assert decided(runs=runs, **{**published, "unrecorded": None}) == (LaunchAction.DONE, "published")
    used_up = {"runs": (lost, other, other), **published}
    assert decided(**used_up) == (LaunchAction.DONE, "published")  # what is published counts
    action, reason = decided(missing_tables=("uc.parts",), published_at=NOW, **used_up)
    assert (action, reason.partition(":")[0]) == (LaunchAction.LAUNCH, "TABLES_MISSING")
    assert decided(fingerprint=None, missing_days=(FRIDAY,), **published, runs=(lost,))[0] is LaunchAction.DONE
    assert decided(is_stale=True, **published, runs=(lost,))[1] == "again: run lost failed with WORKER_LOST"
    assert decided(runs=(lost,), is_published=True, unrecorded_tables=lost) == again
    assert decided(runs=(lost, other, other), is_published=True, unrecorded_tables=lost)[0] is LaunchAction.DONE


def test_what_cannot_be_read_and_what_is_running_wait() -> None:
    assert decided(unreadable="no network") == (LaunchAction.WAIT, "no network")
    live = run(RunState.LIVE, ended_at=None)
    assert decided(is_published=True, is_stale=True, runs=(live,)) == (LaunchAction.WAIT, "run r1 is running")


@pytest.mark.parametrize(
    ("runs", "action"),
    [
        ([run(RunState.FAILED, failure_class=FailureClass.CLUSTER_LOST)], LaunchAction.LAUNCH),
        ([run(RunState.FAILED, failure_class=FailureClass.INPUT_CHANGED, ended_at=NOW)], LaunchAction.LAUNCH),
        ([run(RunState.FAILED, failure_class=FailureClass.CLUSTER_LOST, ended_at=NOW)], LaunchAction.WAIT),
        ([run(RunState.FAILED, failure_class=FailureClass.CLUSTER_LOST)] * 3, LaunchAction.LEAVE),
        ([run(RunState.FAILED, failure_class=FailureClass.JOB_FAILED)], LaunchAction.LEAVE),
        ([run(RunState.CANCELED)], LaunchAction.LEAVE),
        # Other rows are another launch: attempts for the rows before do not count.
        ([run(RunState.FAILED, failure_class=FailureClass.JOB_FAILED, launch=f"{FRIDAY}|before")], LaunchAction.LAUNCH),
    ],
)
def test_a_failed_run_is_followed_by_another_as_of_a_day(runs: list[PastRun], action: LaunchAction) -> None:
    assert decided(runs=tuple(runs))[0] is action


def test_run_keys_are_of_what_it_is_made_from_and_of_the_attempt() -> None:
    failed = run(RunState.FAILED, failure_class=FailureClass.CLUSTER_LOST)
    keys = {
        decide_snapshot(SnapshotFacts(export_day=FRIDAY, fingerprint=fingerprint, runs=runs), NOW).run_key
        for fingerprint in ("f", "g")
        for runs in ((), (failed,))
    }
    assert len(keys) == 4


def test_fridays_of_the_look_back_are_due_two_minutes_after_their_last_day_is() -> None:
    due = datetime(2023, 6, 16, 9, 32, tzinfo=UTC)
    assert due_snapshots(CALENDAR, due) == [FRIDAY, NEXT]
    assert due_snapshots(CALENDAR, due - timedelta(seconds=1)) == [FRIDAY]
    assert due_snapshots(CALENDAR, datetime(2023, 6, 8, 12, tzinfo=UTC)) == []


def test_the_oldest_is_launched_first_and_a_later_one_not_beside_it() -> None:
    facts = [SnapshotFacts(export_day=day, fingerprint="f") for day in (FRIDAY, NEXT)]
    decisions = [(each, decide_snapshot(each, NOW)) for each in facts]
    chosen = to_launch(decisions)
    assert chosen is not None
    assert chosen[0].export_day == FRIDAY
    at_work = SnapshotFacts(export_day=FRIDAY, fingerprint="f", runs=(run(RunState.LIVE, ended_at=None),))
    assert to_launch([(at_work, decide_snapshot(at_work, NOW)), decisions[1]]) is None
    left = SnapshotFacts(export_day=FRIDAY, fingerprint="f", runs=(run(RunState.CANCELED),))
    chosen = to_launch([(left, decide_snapshot(left, NOW)), decisions[1]])
    assert chosen is not None
    assert chosen[0].export_day == NEXT


def test_tables_that_are_missing_are_made_alone_and_given_up_by_their_own_runs() -> None:
    lacks = {"is_published": True, "missing_tables": ("uc.parts",)}
    decision = decide_snapshot(SnapshotFacts(export_day=FRIDAY, fingerprint="f", **lacks), NOW)  # type: ignore[arg-type]
    assert (decision.action, decision.tables_only) == (LaunchAction.LAUNCH, True)
    assert "TABLES_MISSING: the snapshot is published, tables (uc.parts) are not" in decision.reason
    failed = run(RunState.FAILED, failure_class=FailureClass.JOB_FAILED, publishes_records=False)
    assert decided(runs=(failed,), **lacks)[0] is LaunchAction.LEAVE
    assert decided(runs=(failed,))[0] is LaunchAction.LAUNCH  # of the snapshot: that run did not make it


@pytest.mark.parametrize(("hours", "action"), [(0.5, LaunchAction.LAUNCH), (2, LaunchAction.LEAVE)])
def test_runs_that_ended_before_the_snapshot_was_made_again_use_up_no_attempt_at_its_tables(
    hours: float, action: LaunchAction
) -> None:
    published_at = NOW - timedelta(hours=hours)
    runs = (run(RunState.SUCCEEDED),) * 3  # an hour ago
    lacks = {"is_published": True, "missing_tables": ("uc.parts",), "published_at": published_at}
    assert decided(runs=runs, **lacks)[0] is action
