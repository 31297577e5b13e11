"""The lease: one holder at a time, the dead are succeeded, the living are named. On a folder and on S3."""

import threading
import time

import pytest

from cdi_dagster.storage import open_storage
from cdi_dagster.storage.lease import Lease, LeaseHeldError
from cdi_dagster_tests.s3_server import new_s3_storage
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

KEY = "_control/lease.json"
SHORT = 1.2


@pytest.fixture(params=["folder", "s3"])
def storage(request, tmp_path):
    return open_storage(tmp_path.as_uri()) if request.param == "folder" else new_s3_storage()


def test_a_live_holder_is_named_within_two_heartbeats(storage):
    with Lease(storage, KEY, "first", lease_seconds=SHORT) as held:
        begun = time.monotonic()
        with pytest.raises(LeaseHeldError, match=r"held by first \(\S+\) since"), Lease(storage, KEY, "second"):
            pass
        assert time.monotonic() - begun < 50  # the second would take a dead one's place after its 60 seconds
        assert held.lost is None


def test_a_lease_that_was_given_back_is_free_at_once(storage):
    for holder in ("first", "second", "first"):
        begun = time.monotonic()
        with Lease(storage, KEY, holder):
            pass
        assert time.monotonic() - begun < 30  # it would wait for the lease's 60 seconds


def test_a_killed_holder_is_succeeded_after_a_lease_and_learns_it(storage):
    dead = Lease(storage, KEY, "killed", lease_seconds=SHORT)
    dead._etag = dead._acquire()  # as a process that is killed before its first heartbeat
    begun = time.monotonic()
    logged = []
    with Lease(storage, KEY, "next", lease_seconds=SHORT, log=logged.append):
        assert [text.partition(" (")[0] for text in logged] == ["Waiting for killed"]
        assert time.monotonic() - begun >= SHORT
        dead._thread.start()
        dead._thread.join(PATIENCE_SECONDS)
        assert "another process took it" in dead.lost


def test_another_process_of_the_same_holder_is_refused_as_any_other_is(storage):
    with Lease(storage, KEY, "run-1", lease_seconds=SHORT) as held:
        with pytest.raises(LeaseHeldError, match="held by run-1"), Lease(storage, KEY, "run-1"):
            pass
        assert not held.is_lost()


def test_of_many_at_once_one_holds_it_at_a_time(storage):
    inside, most, refused = [], [], []

    def work(number):
        try:
            # Six threads and a server in one process: none may be kept from its heartbeat for a whole lease.
            with Lease(storage, KEY, f"run-{number}", lease_seconds=8):
                inside.append(number)
                most.append(len(inside))
                time.sleep(2.5)
                inside.remove(number)
        except LeaseHeldError:
            refused.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) + len(refused) == 6


def test_what_is_no_lease_belongs_to_nobody(storage):
    storage.write(KEY, b"not json")
    with Lease(storage, KEY, "first"):
        pass
