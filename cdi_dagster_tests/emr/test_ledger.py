"""The ledger: who may write, what is resumed, and what counts; on S3, where compare-and-swap has to hold."""

import json
from dataclasses import replace

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.emr.launch_plan import AttemptOutcome
from cdi_dagster.emr.ledger import AttemptEntry, LaunchEntry, LaunchLedger, TakenOverError
from cdi_dagster.emr.resume import Requester, resume
from cdi_dagster.storage.interface import ObjectChangedError, Storage
from cdi_dagster_tests.s3_server import new_s3_storage

FRESH = LaunchEntry(launch_id="r1", step="ingest_daily", work="w1", owner="me", begun_at=100.0)
DEAD = AttemptEntry(
    number=1, name="n-a1", profile="small", run_id="r1", requested_at=1.0, outcome=AttemptOutcome.INTERNAL
)
OPEN = AttemptEntry(number=2, name="n-a2", profile="small", run_id="r1", requested_at=2.0, compute_id="j-2")
FOUND = replace(FRESH, owner="other", begun_at=1.0, attempts=(DEAD, OPEN))
SAME_RUN = Requester(run_id="r1", launch_id="r1", owner="me", is_continuation=True)
PERSON = Requester(run_id="r2", launch_id="r1", owner="me", is_continuation=False)
NEW_RUN = Requester(run_id="r3", launch_id="r3", owner="me", is_continuation=True)


@pytest.fixture
def storage() -> Storage:
    return new_s3_storage()


def test_what_one_process_writes_the_next_reads(storage: Storage) -> None:
    LaunchLedger(storage, "launches/r1").write(FOUND)
    assert LaunchLedger(storage, "launches/r1").read() == FOUND
    assert LaunchLedger(storage, "launches/r2").read() is None


@pytest.mark.parametrize("stored", [b"{", b"[]", b'{"attempts": [{"number": 1}]}'])
def test_one_that_is_damaged_or_another_versions_is_reported_with_what_to_do(storage: Storage, stored: bytes) -> None:
    storage.write("launches/r1.json", stored)
    with pytest.raises(CdiError, match=r"launches/r1\.json, is damaged, or another version") as failed:
        LaunchLedger(storage, "launches/r1").read()
    assert failed.value.failure_class is FailureClass.JOB_FAILED
    assert "`cdi clusters`" in failed.value.next_step


def test_the_stored_form_is_the_one_that_every_version_reads(storage: Storage) -> None:
    """A deploy, forward or back, finds the launches that run."""
    attempt = {
        "number": 1,
        "name": "n-a1",
        "profile": "small",
        "run_id": "r1",
        "requested_at": 1.0,
        "compute_id": "j-1",
        "job_id": "s-1",
        "ready_at": 2.0,
        "ended_at": 3.0,
        "outcome": "INTERNAL",
        "failure": {"failure_class": "LAUNCH_FAILED", "cause": "c"},
        "billed_seconds": 2.0,
    }
    stored = {
        "launch_id": "r1",
        "step": "ingest_daily",
        "work": "w1",
        "owner": "other",
        "begun_at": 1.0,
        "counted_from": 1,
        "attempts": [attempt],
    }
    storage.write("old.json", json.dumps(stored, indent=1).encode())
    entry = LaunchLedger(storage, "old").read()
    assert entry is not None
    [read] = entry.attempts
    assert (read.requested_at, read.compute_id, read.job_id, read.seconds) == (1.0, "j-1", "s-1", 2.0)
    assert read.outcome is AttemptOutcome.INTERNAL
    LaunchLedger(storage, "new").write(entry)
    assert storage.read("new.json") == storage.read("old.json")


def test_one_that_version_0_1_0_wrote_is_read_so_that_an_upgrade_finds_its_clusters(storage: Storage) -> None:
    attempt = {"number": 1, "name": "n-a1", "profile": "small", "run_id": "r1"}
    attempt |= {"asked_at": 1.0, "cluster_id": "j-1", "step_id": "s-1"}
    stored = {"launch_id": "r1", "step": "ingest_daily", "work": "w1", "owner": "other", "begun_at": 1.0}
    storage.write("old.json", json.dumps(stored | {"outcome": None, "attempts": [attempt]}).encode())
    entry = LaunchLedger(storage, "old").read()
    assert entry is not None
    assert entry.current is not None
    assert (entry.current.requested_at, entry.current.compute_id, entry.current.job_id) == (1.0, "j-1", "s-1")


def test_of_two_processes_that_both_begin_one_has_to_leave_it(storage: Storage) -> None:
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


def test_after_a_signal_between_a_write_and_its_response_the_ledger_is_still_its_own(storage: Storage) -> None:
    class Interrupted:
        """Is interrupted once what it was to write is stored."""

        signals = 1

        def __getattr__(self, name: str) -> object:
            return getattr(storage, name)

        def write(self, key: str, data: bytes, **conditions: object) -> object:
            stored = storage.write(key, data, **conditions)  # type: ignore[arg-type]
            if self.signals:
                self.signals -= 1
                raise KeyboardInterrupt
            return stored

    ledger, other = LaunchLedger(Interrupted(), "l"), LaunchLedger(storage, "l")  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        ledger.write(FRESH)
    assert ledger.write(FRESH.with_attempt(OPEN)) == FRESH.with_attempt(OPEN)
    other.read()
    assert other.entry == FRESH.with_attempt(OPEN)


def test_the_run_that_began_continues_with_its_attempt_and_its_budgets() -> None:
    mine = resume(FOUND, FRESH, SAME_RUN)
    assert (mine.owner, mine.current, mine.begun_at) == ("me", OPEN, 1.0)
    assert [attempt.outcome for attempt in mine.failed] == [AttemptOutcome.INTERNAL]


@pytest.mark.parametrize("requester", [PERSON, NEW_RUN])
def test_who_requests_it_again_gets_what_runs_and_new_budgets(requester: Requester) -> None:
    fresh = replace(FRESH, launch_id=requester.launch_id)
    mine = resume(FOUND, fresh, requester)
    assert (mine.current, mine.begun_at, mine.failed, mine.launch_id) == (OPEN, 100.0, (), requester.launch_id)


@pytest.mark.parametrize("requester", [PERSON, NEW_RUN])
def test_who_requests_again_what_is_over_gets_new_attempts_under_new_names(requester: Requester) -> None:
    for last in (replace(DEAD, outcome=AttemptOutcome.SUCCEEDED), DEAD):
        over = replace(FOUND, attempts=(last,))
        mine = resume(over, replace(FRESH, launch_id=requester.launch_id), requester)
        assert (mine.has_succeeded, mine.current, mine.failed, mine.attempts) == (False, None, (), (last,))


def test_success_is_believed_and_failure_is_judged_again_by_the_run_that_began() -> None:
    well = replace(FOUND, attempts=(DEAD, replace(OPEN, outcome=AttemptOutcome.SUCCEEDED)))
    assert resume(well, FRESH, SAME_RUN).has_succeeded
    again = resume(replace(FOUND, attempts=(DEAD,)), FRESH, SAME_RUN)
    assert not again.has_succeeded
    assert [attempt.outcome for attempt in again.failed] == [AttemptOutcome.INTERNAL]


def test_an_attempt_at_other_work_is_history_that_is_still_to_be_ended() -> None:
    mine = resume(FOUND, replace(FRESH, work="w2"), SAME_RUN)
    assert (mine.work, mine.current, mine.failed, mine.counted) == ("w2", OPEN, (), ())


@pytest.mark.parametrize("requester", [SAME_RUN, PERSON, NEW_RUN])
def test_an_attempt_at_other_work_that_could_not_be_ended_is_still_no_attempt_at_this_one(requester: Requester) -> None:
    fresh = replace(FRESH, work="w2", launch_id=requester.launch_id)
    mine = resume(resume(FOUND, fresh, requester), fresh, requester)
    assert (mine.current, mine.counted) == (OPEN, ())
