"""One ingestion of a day at a time, whatever runs it: two Dagster installations, `cdi ingest`, a lost worker's Spark.

Inside one Dagster the run records already ensure that (`run_records.require_only_run`). The lease ensures it for
processes that share only the storage: `Storage.publish` allows one publisher of a prefix at a time. No dagster.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass, StepMayGoOnError
from cdi_dagster.core.storage_keys import ingestion_lease_key, snapshot_lease_key, snapshot_tables_lease_key
from cdi_dagster.published.publish import discard_uploads
from cdi_dagster.storage.interface import Storage, StorageError
from cdi_dagster.storage.lease import DEFAULT_LEASE_SECONDS, Lease, LeaseHeldError

MOST_WAIT_SECONDS = 2 * 60 * 60.0
"""Wait for the tables of another Friday, which take some minutes: one that takes longer is stuck."""

_log = logging.getLogger(__name__)


@contextmanager
def ingestion_lease(
    published: Storage,
    day: CollectionDay,
    *,
    holder: str,
    lease_seconds: float = DEFAULT_LEASE_SECONDS,
    log: Callable[[str], None] = _log.info,
) -> Iterator[Lease]:
    """Hold the day's ingestion lease while the block lasts.

    Args:
        published: where the lease is kept, beside what is published.
        day: what is ingested.
        holder: the run's correlation id. Where two daemons start a run, its second worker is refused as any other
            run's is.
        lease_seconds: after how long a silent holder counts as killed.
        log: logs, once, that this waits for the lease of a holder that may be dead.

    Raises:
        CdiError: DUPLICATE_RUN, naming the other run, which is alive; or where the block failed and another run has
            taken the lease meanwhile: then that run discarded what this one was writing.
        StorageError: the lease cannot be read or written.
    """
    lease = Lease(published, ingestion_lease_key(day), holder, lease_seconds=lease_seconds, log=log)
    with _held(lease, f"has been ingesting {day}"):
        yield lease


@contextmanager
def snapshot_lease(
    published: Storage, day: CollectionDay, *, holder: str, log: Callable[[str], None] = _log.info
) -> Iterator[Lease]:
    """Hold the lease of the snapshot of the day's export day while the block lasts; otherwise as `ingestion_lease`.

    Raises:
        CdiError: DUPLICATE_RUN, naming the other run, which is alive.
        StorageError: the lease cannot be read or written.
    """
    lease = Lease(published, snapshot_lease_key(day), holder, log=log)
    with _held(lease, f"has been making the snapshot of {day.collection.id} for {day.export_day}"):
        yield lease


@contextmanager
def snapshot_tables_lease(
    published: Storage,
    day: CollectionDay,
    *,
    holder: str,
    lease_seconds: float = DEFAULT_LEASE_SECONDS,
    most_wait_seconds: float = MOST_WAIT_SECONDS,
    log: Callable[[str], None] = _log.info,
) -> Iterator[None]:
    """Hold what is needed to publish tables from the snapshot of the day's export day while the block lasts.

    That is the snapshot's lease, as making it would replace its files while they are read; and then, waited for, that
    of the collection's tables, whose attempts of all Fridays lie in one place. Always in this order, and nothing waits
    for a snapshot's lease: so no two wait for each other.

    Raises:
        CdiError: DUPLICATE_RUN, naming the other run of this Friday; TABLES_MISSING, naming that of another, where it
            does not end.
        StorageError: a lease cannot be read or written.
    """
    with snapshot_lease(published, day, holder=holder, log=log), ExitStack() as stack:
        key = snapshot_tables_lease_key(day.collection)
        deadline = time.monotonic() + most_wait_seconds
        while True:
            try:
                stack.enter_context(Lease(published, key, holder, lease_seconds=lease_seconds, log=log))
                break
            except LeaseHeldError as error:
                if time.monotonic() >= deadline:
                    raise _not_its_turn(day, error) from error
                log(f"Waiting for {error.named}, which publishes tables of another snapshot of {day.collection.id}")
                log = _log.info  # that is enough on the page of the run
        yield


def _not_its_turn(day: CollectionDay, error: LeaseHeldError) -> CdiError:
    return CdiError(
        FailureClass.TABLES_MISSING,
        f"{error.named} has been publishing tables of another snapshot of {day.collection.id} since "
        f"{error.since}; it is alive. Those of {day.export_day} waited for it too long.",
        next_step="Find out why that run does not end, and end it; then materialise the tables.",
        detail={"correlation_id": error.holder},
    )


@contextmanager
def _held(lease: Lease, doing: str) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(lease)
        except LeaseHeldError as error:
            raise CdiError(
                FailureClass.DUPLICATE_RUN,
                f"{error.named} {doing} since {error.since}; it is alive.",
                detail={"correlation_id": error.holder},
            ) from error
        try:
            yield
        except Exception as error:
            if not lease.is_lost():
                raise
            cause = error.cause if isinstance(error, CdiError) else type(error).__name__
            raise CdiError(
                FailureClass.DUPLICATE_RUN,
                f"The lease of this run had no heartbeat for {lease.lease_seconds:.0f} s, and {lease.lost}. "
                f"It failed then: {cause}",
            ) from error


@contextmanager
def discard_after_failure(published: Storage, day: CollectionDay, lease: Lease) -> Iterator[None]:
    """Run a Spark step in the block; where it failed, discard the decrypted records that it may have left.

    For the holder of the day's lease; once another run has taken it, what is there is that run's. Never before the
    step: a restarted Dagster process resumes a running step. A step that may still be running (`StepMayGoOnError`, an
    interruption) keeps its uploads: the next run discards them.
    """
    try:
        yield
    except StepMayGoOnError:
        raise
    except CdiError:
        if lease.is_lost():
            raise
        try:
            discard_uploads(published, day, group=None)
        except StorageError as error:  # raising it would hide why the step failed
            _log.warning("Some uploads of %s could not be discarded; the next run does: %s", day, error)
        raise
