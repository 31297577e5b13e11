"""The ledger: who may write, what is taken up, and what counts; on S3, where compare-and-swap has to hold."""

from dataclasses import replace

import pytest

from cdi_dagster.core.emr_verdict import TroubleKind
from cdi_dagster.emr.ledger import FAILED, SUCCEEDED, Attempt, LaunchEntry, LaunchLedger, TakenOverError
from cdi_dagster.emr.taking_up import Asker, taken_up
from cdi_dagster.storage.interface import ObjectChangedError, Storage
from cdi_dagster_tests.s3_server import new_s3_storage

FRESH = LaunchEntry(launch_id="r1", step="ingest_daily", work="w1", owner="me", begun_at=100.0)
DEAD = Attempt(number=1, name="n-a1", profile="small", run_id="r1", asked_at=1.0, outcome="INTERNAL")
OPEN = Attempt(number=2, name="n-a2", profile="small", run_id="r1", asked_at=2.0, cluster_id="j-2")
FOUND = replace(FRESH, owner="other", begun_at=1.0, attempts=(DEAD, OPEN))
SAME_RUN = Asker(run_id="r1", launch_id="r1", owner="me", is_continuation=True)
PERSON = Asker(run_id="r2", launch_id="r1", owner="me", is_continuation=False)
NEW_RUN = Asker(run_id="r3", launch_id="r3", owner="me", is_continuation=True)


@pytest.fixture
def storage() -> Storage:
    return new_s3_storage()


def test_what_one_process_writes_the_next_reads(storage: Storage) -> None:
    LaunchLedger(storage, "launches/r1").write(FOUND)
    assert LaunchLedger(storage, "launches/r1").read() == FOUND
    assert LaunchLedger(storage, "launches/r2").read() is None


def test_of_two_processes_that_both_begin_one_is_told_to_leave_it(storage: Storage) -> None:
    one, other = LaunchLedger(storage, "l"), LaunchLedger(storage, "l")
    assert one.read() is None
    assert other.read() is None
    one.write(FRESH)
    with pytest.raises(TakenOverError, match="Another process follows this launch now"):
        other.write(replace(FRESH, owner="other"))


def test_a_process_whose_launch_was_taken_over_cannot_write_any_more(storage: Storage) -> None:
    old, new = LaunchLedger(storage, "l"), LaunchLedger(storage, "l")
    old.write(FRESH)
    new.read()
    new.write(replace(FRESH, owner="new"))
    with pytest.raises(TakenOverError):
        old.write(FRESH.with_attempt(OPEN))


def test_an_own_write_whose_answer_was_lost_is_not_taken_for_anothers(storage: Storage) -> None:
    class Forgetful:
        """Stores, and then answers as to the SDK's second try."""

        def __getattr__(self, name: str) -> object:
            return getattr(storage, name)

        def write(self, key: str, data: bytes, **conditions: object) -> object:
            storage.write(key, data, **conditions)  # type: ignore[arg-type]
            raise ObjectChangedError("412")

    ledger = LaunchLedger(Forgetful(), "l")  # type: ignore[arg-type]
    ledger.write(FRESH)
    assert ledger.write(FOUND) == FOUND


def test_the_run_that_began_goes_on_with_its_attempt_and_its_budgets() -> None:
    mine = taken_up(FOUND, FRESH, SAME_RUN)
    assert (mine.owner, mine.current, mine.begun_at) == ("me", OPEN, 1.0)
    assert [attempt.kind for attempt in mine.failed] == [TroubleKind.INTERNAL]


@pytest.mark.parametrize("asker", [PERSON, NEW_RUN])
def test_who_asks_again_gets_what_is_at_work_and_new_budgets(asker: Asker) -> None:
    fresh = replace(FRESH, launch_id=asker.launch_id)
    mine = taken_up(FOUND, fresh, asker)
    assert (mine.current, mine.begun_at, mine.failed, mine.launch_id) == (OPEN, 100.0, (), asker.launch_id)


@pytest.mark.parametrize("asker", [PERSON, NEW_RUN])
def test_who_asks_again_for_what_is_over_gets_new_attempts_under_new_names(asker: Asker) -> None:
    for outcome in (SUCCEEDED, FAILED):
        over = replace(FOUND, attempts=(DEAD,), outcome=outcome)
        mine = taken_up(over, replace(FRESH, launch_id=asker.launch_id), asker)
        assert (mine.outcome, mine.current, mine.failed, mine.attempts) == (None, None, (), (DEAD,))


def test_success_is_believed_and_failure_is_judged_again_by_the_run_that_began() -> None:
    over = replace(FOUND, attempts=(DEAD,))
    assert taken_up(replace(over, outcome=SUCCEEDED), FRESH, SAME_RUN).outcome == SUCCEEDED
    again = taken_up(replace(over, outcome=FAILED), FRESH, SAME_RUN)
    assert again.outcome is None
    assert [attempt.kind for attempt in again.failed] == [TroubleKind.INTERNAL]


def test_an_attempt_at_other_work_is_history_that_is_still_to_be_ended() -> None:
    mine = taken_up(FOUND, replace(FRESH, work="w2"), SAME_RUN)
    assert (mine.work, mine.current, mine.failed, mine.counted) == ("w2", OPEN, (), ())
