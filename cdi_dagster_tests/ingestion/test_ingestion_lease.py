"""A run whose lease another one has taken: what it fails of is that, and it leaves the other's work alone."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import daily_prefix, ingestion_lease_key
from cdi_dagster.ingestion.ingestion_lease import discard_after_failure, ingestion_lease
from cdi_dagster.storage import ObjectMissingError, PreparedObject, Storage
from cdi_dagster.storage.files import FileStorage
from cdi_dagster_tests.collections import AUDIT

DAY = AUDIT.on(date(2023, 3, 26))
FAILED = CdiError(FailureClass.JOB_FAILED, "Its upload was gone.")
RECORDS = f"{daily_prefix(DAY)}part-0.jsonl.gz"


@pytest.fixture
def published(tmp_path):
    return FileStorage(tmp_path.as_uri())


@contextmanager
def failing_run(published: Storage) -> Iterator[None]:
    with ingestion_lease(published, DAY, holder="slow") as lease, discard_after_failure(published, DAY, lease):
        yield
        raise FAILED


def test_the_second_worker_of_a_run_is_refused_as_another_run_is(published: Storage) -> None:
    """Two daemons may both start a run: then two processes have its id."""
    with ingestion_lease(published, DAY, holder="r1", lease_seconds=6):
        child = os.fork()
        if child == 0:
            try:
                with ingestion_lease(published, DAY, holder="r1", lease_seconds=6):
                    os._exit(1)
            except CdiError as refused:
                named = refused.detail["correlation_id"] == "r1" and str(os.getppid()) in refused.cause
                os._exit(0 if refused.failure_class is FailureClass.DUPLICATE_RUN and named else 2)
            finally:
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def another_takes_the_lease(published: Storage) -> None:
    """As it does after a minute without a heartbeat; the loser's next one is seconds away."""
    published.write(ingestion_lease_key(DAY), json.dumps({"holder": "next", "since": "now"}).encode())


def prepared_records(published: Storage) -> PreparedObject:
    with published.upload(RECORDS, group="next") as upload:
        upload.write(b"decrypted")
        return upload.prepare()


def test_a_run_that_fails_once_another_has_its_lease_is_a_duplicate(published: Storage) -> None:
    with pytest.raises(CdiError) as raised, failing_run(published):
        another_takes_the_lease(published)
    assert raised.value.failure_class is FailureClass.DUPLICATE_RUN
    assert FAILED.cause in raised.value.cause
    assert b'"next"' in published.read(ingestion_lease_key(DAY))


def test_a_run_that_lost_its_lease_discards_nothing_of_the_others(published: Storage) -> None:
    prepared = prepared_records(published)
    with pytest.raises(CdiError), failing_run(published):
        another_takes_the_lease(published)
    published.publish(daily_prefix(DAY), [prepared], b"mark", group="next")
    assert published.read(RECORDS) == b"decrypted"


def test_a_run_that_fails_with_its_lease_keeps_its_failure_and_discards(published: Storage) -> None:
    with pytest.raises(CdiError) as raised, failing_run(published):
        prepared = prepared_records(published)
    assert raised.value is FAILED
    with pytest.raises(ObjectMissingError):
        published.publish(daily_prefix(DAY), [prepared], b"mark", group="next")
