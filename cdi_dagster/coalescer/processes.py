"""Coalesces a day, or a shard of it, by several processes of this machine, each with a shard of its own.

They are spawned, not forked: the threads of the S3 client do not survive a fork. What is known of one that was killed
is its claim, so it is as if it had run alone.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import reduce
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from cdi_dagster.aws.clients import region, use_region
from cdi_dagster.coalescer.run import coalesce
from cdi_dagster.coalescer.shard import WHOLE_DAY, Shard
from cdi_dagster.coalescer.summary import EMPTY_DAY, CoalesceProgress, CoalesceSummary, DayFigures
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.storage import Encryption, Storage, StorageError, encryption, use_encryption

_PROGRESS_SECONDS = 0.5

_Result = CoalesceSummary | CdiError


def coalesce_by_processes(
    storage: Storage,
    day: CollectionDay,
    *,
    processes: int,
    shard: Shard = WHOLE_DAY,
    progress: Callable[[CoalesceProgress], None] | None = None,
    **options: Any,
) -> CoalesceSummary:
    """Merge the raw objects of a storage day, or of a shard of it; one process is as `coalesce`.

    A shard that fails leaves its objects as they are; the others are merged.

    Args:
        storage: the corporate root.
        day: what to coalesce.
        processes: how many; a Kafka partition is one process's work.
        shard: which shard of the day.
        progress: called while they work, once each has planned.
        options: of `coalesce`, limits and lease.

    Raises:
        CdiError: where no shard could be coalesced, the first one's failure.
        ValueError: a limit below 1, or too many shards.
    """
    if processes == 1:
        return coalesce(storage, day, shard=shard, progress=progress, **options)
    started = time.monotonic()
    running = _Processes(shard.split(processes), progress or (lambda _: None))
    results = running.results(_coalesce_shard, storage, day, {"processes": processes, **options})
    summaries = {shard: result for shard, result in results.items() if isinstance(result, CoalesceSummary)}
    if not summaries:
        raise next(result for result in results.values() if isinstance(result, CdiError))
    return _combined(day, results, seconds=round(time.monotonic() - started, 3))


class _Processes:
    """A process for each shard, and what each has sent."""

    def __init__(self, shards: tuple[Shard, ...], progress: Callable[[CoalesceProgress], None]) -> None:
        self._shards = shards
        self._progress = progress
        self._reported: dict[Shard, CoalesceProgress] = {}
        self._results: dict[Shard, _Result] = {}

    def results(self, target: Callable[..., None], *arguments: Any) -> dict[Shard, _Result]:
        """Start them and return the result of each. Whatever raises here ends them first: their claims are released."""
        context = multiprocessing.get_context("spawn")
        processes: dict[Connection, tuple[Shard, BaseProcess]] = {}
        try:
            for shard in self._shards:
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=target, args=(sender, region(), encryption(), shard, *arguments))
                process.start()
                sender.close()
                processes[receiver] = (shard, process)
            self._receive({connection: shard for connection, (shard, _) in processes.items()})
        finally:
            for connection, (shard, started) in processes.items():
                connection.close()
                if shard not in self._results:
                    started.terminate()
            for shard, started in processes.values():
                started.join()
                self._results.setdefault(shard, _killed(shard, started.exitcode))
        return {shard: self._results[shard] for shard in self._shards}

    def _receive(self, connections: dict[Connection, Shard]) -> None:
        while connections:
            for ready in wait(list(connections)):
                assert isinstance(ready, Connection)  # noqa: S101 - only such are waited for
                shard = connections[ready]
                try:
                    message: CoalesceProgress | _Result = ready.recv()
                except EOFError:
                    del connections[ready]
                    continue
                if isinstance(message, CoalesceProgress):
                    self._reported[shard] = message
                else:
                    self._results[shard] = message
            if len(self._reported.keys() | self._results.keys()) == len(self._shards):
                self._progress(reduce(_sum, self._reported.values(), CoalesceProgress(batches=0, objects=0, bytes=0)))


def _coalesce_shard(
    sender: Connection,
    in_region: str | None,
    encrypted_by: Encryption,
    shard: Shard,
    storage: Storage,
    day: CollectionDay,
    options: Mapping[str, Any],
) -> None:
    """Coalesce a shard, in a process of its own; a signal writes FAILED, and so does the end of who started it."""
    signal.signal(signal.SIGTERM, _stop)
    use_region(in_region or "")
    use_encryption(encrypted_by)
    sent = 0.0

    def send_progress(progress: CoalesceProgress) -> None:
        nonlocal sent
        now = time.monotonic()
        if now - sent >= _PROGRESS_SECONDS or progress.batches_done == progress.batches:
            sent = now
            try:
                sender.send(progress)
            except BrokenPipeError as error:
                raise _failed("The process that started it has ended, so it stopped.") from error

    result: _Result
    try:
        result = coalesce(storage, day, shard=shard, progress=send_progress, **options)
    except CdiError as error:
        result = error
    except StorageError as error:
        result = _failed(f"shard {shard}: {error}")
    except KeyboardInterrupt:
        result = _failed(f"shard {shard} was stopped")
    with suppress(BrokenPipeError):  # who started it is not there any more
        sender.send(result)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _killed(shard: Shard, exit_code: int | None) -> CdiError:
    how = f"was killed by signal {-exit_code}" if exit_code and exit_code < 0 else f"ended with exit code {exit_code}"
    return _failed(f"The process of shard {shard} {how}; nothing is lost or doubled.")


def _failed(cause: str) -> CdiError:
    return CdiError(
        FailureClass.COALESCER_FAILED,
        cause,
        next_step="Fix what the cause names, then run the coalescer again: it continues where it stopped.",
    )


def _sum(one: CoalesceProgress, other: CoalesceProgress) -> CoalesceProgress:
    return CoalesceProgress(
        **{field.name: getattr(one, field.name) + getattr(other, field.name) for field in fields(CoalesceProgress)}
    )


def _combined(day: CollectionDay, results: Mapping[Shard, _Result], *, seconds: float) -> CoalesceSummary:
    summaries = {shard: result for shard, result in results.items() if isinstance(result, CoalesceSummary)}
    failures = [
        failure
        for shard, result in results.items()
        for failure in (
            [f"shard {shard}: {each}" for each in result.failures]
            if isinstance(result, CoalesceSummary)
            else [result.cause]
        )
    ]
    of_all = list(summaries.values())
    before = _all_figures([each.before for each in of_all])
    is_empty = not before.objects and not failures
    return CoalesceSummary(
        collection_id=day.collection.id,
        storage_day=day.storage_day,
        before=before,
        after=_all_figures([each.after for each in of_all]),
        merged=tuple(key for each in of_all for key in each.merged),
        finished=tuple(key for each in of_all for key in each.finished),
        left_alone=tuple(left for each in of_all for left in each.left_alone),
        warnings=(*([EMPTY_DAY] if is_empty else []), *(warning for each in of_all for warning in each.warnings)),
        failures=tuple(failures),
        took_over=", ".join(each.took_over for each in of_all if each.took_over) or None,
        seconds=seconds,
    )


def _all_figures(figures: list[DayFigures]) -> DayFigures:
    return DayFigures(
        objects=sum(each.objects for each in figures),
        bytes=sum(each.bytes for each in figures),
        offsets=sum(each.offsets for each in figures),
        fingerprint=None,
    )
