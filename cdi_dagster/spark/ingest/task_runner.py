"""Runs the tasks of a job on Spark, watches them, and ends all as soon as one has failed.

The driver's half of `task`. A task's failure arrives through an accumulator: reliably, as soon as that task has
ended, while Spark's `collect` would wait for all the others.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from py4j.protocol import Py4JError
from pyspark import RDD, AccumulatorParam, SparkContext

from cdi_dagster.core.failures import CdiError
from cdi_dagster.spark.ingest.progress import ProgressBoard
from cdi_dagster.spark.ingest.task import run_tasks
from cdi_dagster.spark.job_failures import failure_of
from cdi_dagster.spark.reporting import Reporter

_log = logging.getLogger(__name__)
_Task = TypeVar("_Task")

_TICK_SECONDS: Final = 0.2
_PROGRESS_INTERVAL_SECONDS: Final = 5.0
_MOST_SECONDS_TO_END: Final = 10.0
"""Spark kills a cancelled Python worker after 2 s."""


@dataclass(frozen=True, kw_only=True)
class Gathering:
    """A second stage: the pairs that the tasks yield come together by their first value, through Spark's shuffle.

    Attributes:
        partitions: how many tasks it has; a pair's first value is the number of its task.
        work: what a worker does with the pairs of one task.
    """

    partitions: int
    work: Callable[[Iterator[tuple[int, Any]]], Iterable[Any]]


def run_on_spark(
    spark: SparkContext,
    work: Callable[[_Task], Iterable[Any]],
    tasks: Sequence[_Task],
    *,
    group: str,
    description: str,
    board: ProgressBoard,
    reporter: Reporter,
    gathering: Gathering | None = None,
) -> list[Any]:
    """Run every task and return what all have made; Spark itself repeats those whose worker or machine was lost.

    Args:
        spark: runs the tasks.
        work: what a worker does with a task.
        tasks: one for each task of Spark.
        group: name of the job's group; of this run alone.
        description: for Spark's pages.
        board: hears how far they are.
        reporter: gets the progress.
        gathering: what is done with what the tasks made, before it is returned.

    Raises:
        CdiError: the failure of the first task that failed, the others being ended at once; or Spark's own failure.
    """
    failures = spark.accumulator([], _FailureList())

    def collect() -> list[Any]:
        spark.setJobGroup(group, description, interruptOnCancel=True)
        made: RDD[Any] = spark.parallelize(tasks, len(tasks)).mapPartitions(partial(run_tasks, work, failures))
        if gathering:
            made = made.partitionBy(gathering.partitions, int).mapPartitions(partial(_gather, gathering, failures))
        return made.collect()

    with ThreadPoolExecutor(1, thread_name_prefix="collect") as pool:
        collecting = pool.submit(collect)
        try:
            _watch(collecting, failures, board, reporter)
        finally:
            if not collecting.done():
                _end_all(spark, group)
    if failures.value:
        raise CdiError.from_json(failures.value[0])
    try:
        return collecting.result()
    except Py4JError as error:
        raise failure_of(error) from error


def progress_board(spark: SparkContext, *, objects: int, input_bytes: int) -> ProgressBoard:
    """Return a board on the driver's address, which its workers reach."""
    host = spark.getConf().get("spark.driver.host", "127.0.0.1") or "127.0.0.1"
    return ProgressBoard(host, objects=objects, input_bytes=input_bytes)


def planned_cores(spark: SparkContext) -> int:
    """Return the cores to plan for: those there, or those that the executors still to come will have."""
    settings = spark.getConf()
    executor_cores = int(settings.get("spark.executor.cores", "1") or 1)
    executors = 0
    for name in ("spark.executor.instances", "spark.dynamicAllocation.maxExecutors"):
        value = settings.get(name, "") or ""
        if value.isdigit():
            executors = max(executors, int(value))
    return max(spark.defaultParallelism, executors * executor_cores)


def _gather(gathering: Gathering, failures: Any, pairs: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    return run_tasks(gathering.work, failures, [pairs])


class _FailureList(AccumulatorParam[list[dict[str, Any]]]):
    """Gathers the failures of tasks, in order of arrival."""

    def zero(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return []

    def addInPlace(self, value1: list[dict[str, Any]], value2: list[dict[str, Any]]) -> list[dict[str, Any]]:  # noqa: N802 - Spark's name
        return [*value1, *value2]


def _watch(collecting: "Future[list[Any]]", failures: Any, board: ProgressBoard, reporter: Reporter) -> None:
    """Report progress until all tasks have ended or one has failed."""
    progress_due = time.monotonic() + _PROGRESS_INTERVAL_SECONDS
    while not wait([collecting], timeout=_TICK_SECONDS).done and not failures.value:
        board.listen()
        if time.monotonic() >= progress_due:
            progress_due += _PROGRESS_INTERVAL_SECONDS
            reporter.progress(board.text(), **board.numbers())
    board.listen()


def _end_all(spark: SparkContext, group: str) -> None:
    """Cancel the tasks and wait until none runs: what they still write would not be discarded."""
    with suppress(Py4JError, OSError):  # the JVM is gone, and its workers with it
        spark.cancelJobGroup(group)
        tracker = spark.statusTracker()
        deadline = time.monotonic() + _MOST_SECONDS_TO_END
        while time.monotonic() < deadline:
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            if not any(stage and stage.numActiveTasks for stage in stages):
                return
            time.sleep(_TICK_SECONDS)
        _log.warning(
            "Some cancelled tasks still run; what they prepare is discarded with the next attempt of this run."
        )
