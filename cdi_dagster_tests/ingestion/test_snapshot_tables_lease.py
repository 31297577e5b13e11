"""Tables of two snapshots of a collection take turns: the second waits, and one of the same Friday is refused."""

import threading
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import pytest

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.ingestion.ingestion_lease import snapshot_lease, snapshot_tables_lease
from cdi_dagster.published.snapshots import snapshot_of
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

PARTS = find_collection("calculator:calculationParts")
FRIDAY, NEXT = (snapshot_of(PARTS, date(2023, 6, day)) for day in (9, 16))
SHORT = 1.2


@pytest.fixture
def published(tmp_path: Path) -> Storage:
    return open_storage(tmp_path.as_uri())


def test_tables_of_another_friday_wait_for_their_turn(published: Storage) -> None:
    order: list[str] = []
    waits = threading.Event()

    def log(text: str) -> None:
        order.append(text)
        if "tables of another snapshot" in text:
            waits.set()

    def publish_next() -> None:
        with snapshot_tables_lease(published, NEXT, holder="second", lease_seconds=SHORT, log=log):
            order.append("second")

    second = threading.Thread(target=publish_next)
    with snapshot_tables_lease(published, FRIDAY, holder="first", lease_seconds=SHORT):
        second.start()
        assert waits.wait(PATIENCE_SECONDS)
        order.append("first")
    second.join(PATIENCE_SECONDS)
    assert order[0].startswith("Waiting for first (")
    assert order[1].endswith("), which publishes tables of another snapshot of calculator:calculationParts")
    assert order[2:] == ["first", "second"]


def test_who_waits_too_long_fails_so_that_its_tables_are_tried_again_and_names_the_other(published: Storage) -> None:
    def wait() -> None:
        with snapshot_tables_lease(published, NEXT, holder="second", lease_seconds=SHORT, most_wait_seconds=0):
            pass

    with snapshot_tables_lease(published, FRIDAY, holder="first", lease_seconds=SHORT):
        with pytest.raises(CdiError, match=r"first \(\S+\) has been publishing tables of another snapshot") as failed:
            wait()
    assert failed.value.failure_class is FailureClass.TABLES_MISSING
    wait()  # it kept nothing


@pytest.mark.parametrize("held", [snapshot_lease, snapshot_tables_lease])
def test_of_one_friday_there_is_no_second_run_and_the_snapshot_is_not_made_meanwhile(
    published: Storage, held: type
) -> None:
    other = snapshot_lease if held is snapshot_tables_lease else snapshot_tables_lease
    with held(published, FRIDAY, holder="first"), ExitStack() as stack:
        with pytest.raises(CdiError) as failed:
            stack.enter_context(other(published, FRIDAY, holder="second"))
        assert failed.value.failure_class is FailureClass.DUPLICATE_RUN
        stack.enter_context(snapshot_lease(published, NEXT, holder="of another Friday"))
