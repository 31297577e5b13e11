"""Coalesces one collection and storage day: claims it, carries out the plan, returns a summary.

The order of steps cannot lose or double a record: write the whole coalesced object under a name that must be free;
read it back and compare size and checksum; only then delete the raw objects. After a kill before the deletes, all raw
objects are there; after a kill during them, the next run finds the coalesced object and proves by content what it
holds. `plan` decides what to merge.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from cdi_dagster.coalescer.claim import DEFAULT_LEASE_SECONDS, Claim
from cdi_dagster.coalescer.member_indexes import delete_orphans, write_index
from cdi_dagster.coalescer.merge import BatchError, Merged, merge, stored_checksum
from cdi_dagster.coalescer.plan import (
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_OBJECTS,
    Batch,
    Plan,
    plan_batches,
)
from cdi_dagster.coalescer.proof import require_holds
from cdi_dagster.coalescer.raw_objects import Source
from cdi_dagster.coalescer.shard import WHOLE_DAY, Shard
from cdi_dagster.coalescer.summary import EMPTY_DAY, CoalesceProgress, CoalesceSummary, DayFigures, day_figures
from cdi_dagster.core.bulk import collector_paused
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.storage_keys import member_indexes_prefix
from cdi_dagster.storage.interface import ObjectExistsError, Storage, StorageError
from cdi_dagster.storage.read_ahead import ReadAhead

_BATCHES_AT_ONCE = 4
"""So one is uploaded, read back or deleted while others are read; each holds up to a part (8 MB) and 8 MB ahead."""
_log = logging.getLogger(__name__)


def coalesce(
    storage: Storage,
    day: CollectionDay,
    *,
    shard: Shard = WHOLE_DAY,
    processes: int = 1,
    max_bytes: int = DEFAULT_MAX_BYTES,
    max_objects: int = DEFAULT_MAX_OBJECTS,
    progress: Callable[[CoalesceProgress], None] | None = None,
    lease_seconds: float = DEFAULT_LEASE_SECONDS,
    clock: Callable[[], datetime] | None = None,
) -> CoalesceSummary:
    """Merge the raw objects of a storage day; finish what a killed run started.

    A batch that cannot be merged stays as it is; the others are merged. Summary and FAILED marker give the reason.

    Args:
        storage: the corporate root.
        day: what to coalesce.
        shard: which shard of it.
        processes: how many coalesce on this machine at the same time, each a shard: they share its requests.
        max_bytes: most compressed bytes of one batch.
        max_objects: most raw objects of one batch.
        progress: called after every raw object and batch, by one thread at a time.
        lease_seconds: how long a RUNNING marker counts as alive without a heartbeat (`marker.Claim`).
        clock: the time now, aware.

    Raises:
        ValueError: a limit below 1.
        CdiError: COALESCER_RUNNING where another coalescer is working on the day; COALESCER_FAILED where another one
            took over this claim.
        StorageError: the day cannot be listed, or the marker cannot be written.
    """
    if max_bytes < 1 or max_objects < 1:
        raise ValueError("max_bytes and max_objects must each be 1 or more")
    started = time.monotonic()
    prefix = day.corporate_prefix
    with Claim(storage, day, shard=shard, lease_seconds=lease_seconds, clock=clock) as claim:
        for owner in (shard, *claim.replaced):
            storage.discard(prefix, group=owner.upload_group)
            storage.discard(member_indexes_prefix(day), group=owner.upload_group)
        with collector_paused():
            found = _listed(storage, prefix, shard)
            plan = plan_batches(day.collection, prefix, found, max_bytes=max_bytes, max_objects=max_objects)
        delete_orphans(storage, day, shard, (left.key for left in plan.left_alone))
        with ReadAhead(processes=processes) as readers:
            run = _Run(storage, claim, plan, shard.upload_group, readers, progress or (lambda _: None))
            results = run.carry_out()
        failures = (*plan.conflicts, *(result.failure for result in results if result.failure))
        after = day_figures(_listed(storage, prefix, shard))
        if failures:
            claim.fail(_reason(failures), **asdict(after))
        else:
            claim.complete(**asdict(after))
    return CoalesceSummary(
        collection_id=day.collection.id,
        storage_day=day.storage_day,
        before=_found(plan),
        after=after,
        merged=tuple(result.merged for result in results if result.merged),
        finished=tuple(result.finished for result in results if result.finished),
        left_alone=plan.left_alone,
        warnings=(*_oddities(plan, shard), *(warning for result in results for warning in result.warnings)),
        failures=failures,
        took_over=claim.took_over,
        seconds=round(time.monotonic() - started, 3),
    )


def _listed(storage: Storage, prefix: str, shard: Shard) -> Iterator[StoredObject]:
    return (stored for stored in storage.list(prefix) if shard.holds(stored.key))


def _found(plan: Plan) -> DayFigures:
    return DayFigures(
        objects=plan.listed_objects, bytes=plan.listed_bytes, offsets=plan.listed_offsets, fingerprint=None
    )


def _reason(failures: Sequence[str]) -> str:
    return failures[0] if len(failures) == 1 else f"{len(failures)} batches failed; the first: {failures[0]}"


def _oddities(plan: Plan, shard: Shard) -> list[str]:
    if not plan.batches and not plan.left_alone and shard.is_whole:
        return [EMPTY_DAY]
    return [f"{left.key} was left alone: {left.why}" for left in plan.left_alone if not left.expected]


@dataclass(frozen=True, kw_only=True)
class _BatchResult:
    """What became of one batch: its coalesced object was written, or was there, or the failure."""

    merged: str | None = None
    finished: str | None = None
    failure: str | None = None
    warnings: tuple[str, ...] = ()


class _StoppedError(Exception):
    """Another batch's error, or a signal, stops the run; raised in the threads of the other batches."""


class _Run:
    """One plan being carried out, a few batches at a time: they share no object."""

    def __init__(
        self,
        storage: Storage,
        claim: Claim,
        plan: Plan,
        upload_group: str,
        readers: ReadAhead,
        progress: Callable[[CoalesceProgress], None],
    ) -> None:
        self._storage = storage
        self._claim = claim
        self._plan = plan
        self._upload_group = upload_group
        self._progress = progress
        self._state = CoalesceProgress(batches=len(plan.batches), objects=plan.source_count, bytes=plan.source_bytes)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._readers = readers

    def carry_out(self) -> list[_BatchResult]:
        """Merge every batch and return what became of each, in the plan's order.

        Raises:
            CdiError: the claim is lost. Each batch stops before it deletes or completes anything more.
        """
        with ThreadPoolExecutor(_BATCHES_AT_ONCE, thread_name_prefix="coalescer batch") as workers:
            results = [workers.submit(self._merge, batch) for batch in self._plan.batches]
            try:
                ended, _ = wait(results, return_when=FIRST_EXCEPTION)
                for result in ended:
                    result.result()
                return [result.result() for result in results]
            except BaseException:
                self._stopping.set()
                workers.shutdown(wait=True, cancel_futures=True)
                raise

    def _merge(self, batch: Batch) -> _BatchResult:
        counted = _Counted(self, batch)
        try:
            self._require_going_on()
            result = self._store(batch, counted)
            self._require_going_on()
            self._storage.delete(batch.sources.keys())
        except (BatchError, StorageError) as error:
            _log.info("A batch was not merged: %s", error)  # the caller prints the summary's failures
            result = _BatchResult(failure=str(error))
        counted.end()
        return result

    def _require_going_on(self) -> None:
        """Raise where the run is stopped or the claim lost; called before anything that changes the day."""
        if self._stopping.is_set():
            raise _StoppedError
        self._claim.require_held()

    def _store(self, batch: Batch, counted: "_Counted") -> _BatchResult:
        """Return when the coalesced object is stored and proven to hold every source."""
        present = batch.stored_as or self._storage.head(batch.key)
        if present is None:
            uploaded, merged = self._upload(batch, counted)
            if merged is not None:
                self._verify(uploaded, merged)
                warnings = write_index(self._storage, uploaded, merged, upload_group=self._upload_group)
                return _BatchResult(merged=batch.key, warnings=(*merged.warnings, *warnings))
            present = uploaded
        require_holds(self._storage, present, batch.sources)
        return _BatchResult(finished=batch.key)

    def _upload(self, batch: Batch, counted: "_Counted") -> tuple[StoredObject, Merged | None]:
        """Upload a coalesced object; if the name was taken meanwhile, return that object and None."""
        with self._storage.upload(batch.key, if_absent=True, group=self._upload_group) as upload:

            def write(data: bytes) -> None:
                if self._stopping.is_set():
                    raise _StoppedError
                upload.write(data)

            merged = merge(self._storage, batch.sources, write, readers=self._readers, on_source=counted.add)
            self._require_going_on()
            try:
                return upload.complete(), merged
            except ObjectExistsError:
                present = self._storage.head(batch.key)
                if present is None:
                    raise
                return present, None

    def _verify(self, stored: StoredObject, merged: Merged) -> None:
        if stored_checksum(self._storage, stored) == (merged.size_bytes, merged.sha256):
            return
        # The pin would read it instead of the raw objects. We wrote it (the name was free), so we may delete it.
        self._storage.delete([stored.key])
        raise BatchError(
            f"{stored.key} did not read back as written; it was removed, and all its raw objects are kept. "
            "Check the storage, then run the coalescer again."
        )

    def advance(self, *, objects: int, size_bytes: int, batches: int = 0) -> None:
        """Count what is done, and report it: to the caller, and with the next heartbeat in the marker."""
        with self._lock:
            done = self._state
            self._state = replace(
                done,
                batches_done=done.batches_done + batches,
                objects_done=done.objects_done + objects,
                bytes_done=done.bytes_done + size_bytes,
            )
            self._claim.share_done = self._state.share_done
            self._progress(self._state)


class _Counted:
    """The raw objects of one batch that are counted as done."""

    def __init__(self, run: _Run, batch: Batch) -> None:
        self._run, self._objects, self._bytes = run, len(batch.sources), batch.size_bytes

    def add(self, source: Source) -> None:
        """Count one that is merged."""
        self._objects -= 1
        self._bytes -= source.stored.size_bytes
        self._run.advance(objects=1, size_bytes=source.stored.size_bytes)

    def end(self) -> None:
        """Count the rest: merged by an earlier run, or failed."""
        self._run.advance(objects=self._objects, size_bytes=self._bytes, batches=1)
