"""The Spark tasks of `ingest_daily`: pinned objects in, prepared parts of records and rejects out, and the counts.

Of a keyed collection the records are rows, and come together by their `id_part` before they are written: `read_rows`
passes them on, `write_rows` writes them.

Runs in Spark's Python workers; the driver's side is `ingest_daily`. Nothing it makes is visible until the driver
publishes it. A failure comes back as a value: raised, Spark would try the task again (three more calls to a key
service that refuses us) and write the error's text, which may hold payload, to its log.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Self, TypeVar

from pyspark import Accumulator

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.full_disk import is_full, storage_full
from cdi_dagster.core.ingest_report import KeyServiceCounts, ObjectCounts, RejectSample
from cdi_dagster.published.publish import WrittenPart
from cdi_dagster.spark.ingest.objects import IngestedBlock, ObjectsIngestion
from cdi_dagster.spark.ingest.pinned_streams import opened
from cdi_dagster.spark.ingest.planning import ReadTask
from cdi_dagster.spark.ingest.progress import ProgressAddress, ProgressSender
from cdi_dagster.spark.ingest.rows import Row, RowFiles, partition_of, rows_of
from cdi_dagster.spark.ingest.writing import PartsWriter
from cdi_dagster.spark.key_service.client import KeyServiceConfig, shared_client
from cdi_dagster.spark.records.engine import RecordEngine
from cdi_dagster.storage import Storage, StorageError, open_storage, storage_failure

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What all tasks of a job share.

    Attributes:
        collection: being ingested.
        corporate_root: where the pinned objects are.
        published_root: where records and rejects go.
        records_prefix: prefix of the records below it.
        rejects_prefix: prefix of the rejects below it.
        publication_id: ends every part's name.
        correlation_id: of the run; the group of its uploads.
        task_count: how many tasks there are.
        dense_offsets: whether every offset of an object's name is one envelope, so that a reject's offset is known.
        key_service: how to reach it.
        progress: where to send how far the task is.
        row_partitions: of a keyed collection, in how many tasks its rows are gathered.
    """

    collection: Collection
    corporate_root: str
    published_root: str
    records_prefix: str
    rejects_prefix: str
    publication_id: str
    correlation_id: str
    task_count: int
    dense_offsets: bool
    key_service: KeyServiceConfig
    progress: ProgressAddress | None
    row_partitions: int = 0


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What one task made and counted.

    Attributes:
        objects: counts of each object it read, or of its part of one.
        parts: of records; not of rows, which another task writes.
        rejects: parts of rejects.
        reject_samples: a few rejects by reason.
        fallback_records: records that took the plain algorithm.
        key_service: counts of the task's requests to it.
    """

    objects: tuple[ObjectCounts, ...]
    parts: tuple[WrittenPart, ...]
    rejects: tuple[WrittenPart, ...]
    reject_samples: tuple[RejectSample, ...]
    fallback_records: int
    key_service: KeyServiceCounts


def run_tasks(
    work: Callable[[_Task], Iterable[_Result]], failures: "Accumulator[list[dict[str, object]]]", tasks: Iterable[_Task]
) -> Iterator[_Result]:
    """Do the work of the tasks of one Spark partition; a failed one adds to `failures`, which the driver watches."""
    for task in tasks:
        try:
            yield from work(task)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - sent to the driver without its text; Rust's panics too
            failures.add([task_failure(error).to_json()])


def task_failure(error: BaseException) -> CdiError:
    """Return the failure that an error in a task is, without payload: of an unforeseen error only type and place."""
    if isinstance(error, CdiError):
        return error
    if isinstance(error, StorageError):
        return storage_failure(error)
    if isinstance(error, MemoryError):
        return CdiError(FailureClass.OUT_OF_MEMORY, "A Python worker ran out of memory.")
    if is_full(error):
        return storage_full(
            f"A disk of a worker is full: {type(error).__name__} at {getattr(error, 'filename', None)}."
        )
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return CdiError(
        FailureClass.JOB_FAILED,
        f"A task failed with {type(error).__name__} in {frame.name} ({frame.filename.rpartition('/')[2]}, line "
        f"{frame.lineno}). Its text is not shown: it may hold payload.",
    )


def run_task(settings: TaskSettings, task: ReadTask) -> Iterator[TaskResult]:
    """Ingest the task's objects."""
    with _TaskIngestion(settings, task) as ingestion, _parts_writer(settings, settings.records_prefix, task) as records:
        for block in ingestion.blocks():
            records.write(block.result.records, block.result.published)
        yield ingestion.result(records.finish())


def read_rows(settings: TaskSettings, task: ReadTask) -> Iterator[tuple[int, Row | TaskResult]]:
    """Ingest the task's objects; yield each row with the number of the task that writes it, and at last the result.

    The result goes the same way as the rows: where Spark repeats a lost task, both are of one and the same attempt.
    """
    with _TaskIngestion(settings, task) as ingestion:
        for block in ingestion.blocks():
            for row in rows_of(block):
                yield partition_of(row[3], settings.row_partitions), row
        yield settings.row_partitions, ingestion.result(())


def write_rows(
    settings: TaskSettings, gathered: Iterable[tuple[int, Row | TaskResult]]
) -> Iterator[WrittenPart | TaskResult]:
    """Write the rows that came together; pass on results."""
    files = RowFiles(
        task_storage(settings.published_root),
        settings.records_prefix,
        publication_id=settings.publication_id,
        group=settings.correlation_id,
    )
    for _, made in gathered:
        if isinstance(made, TaskResult):
            yield made
        else:
            files.add(made)
    yield from files.finish()


class _TaskIngestion:
    """The ingestion of one task's objects, with all that it opens."""

    def __init__(self, settings: TaskSettings, task: ReadTask) -> None:
        self._task = task
        self._stack = ExitStack()
        self._storage = task_storage(settings.corporate_root)
        self._client = shared_client(settings.key_service)
        self._counts_before = self._client.counts
        self._rejects = self._stack.enter_context(_parts_writer(settings, settings.rejects_prefix, task))
        self._ingestion = ObjectsIngestion(
            RecordEngine(settings.collection, self._client),
            rejects=self._rejects,
            progress=self._stack.enter_context(closing(ProgressSender(settings.progress, task.index))),
            dense_offsets=settings.dense_offsets,
        )

    def blocks(self) -> Iterator[IngestedBlock]:
        """Yield what became of the envelopes, block by block."""
        with closing(opened(self._storage, self._task.pieces)) as streams:
            yield from self._ingestion.ingest(streams)

    def result(self, parts: tuple[WrittenPart, ...]) -> TaskResult:
        """Return the counts, once all blocks are taken."""
        return TaskResult(
            objects=self._ingestion.counts,
            parts=parts,
            rejects=self._rejects.finish(),
            reject_samples=tuple(self._ingestion.samples),
            fallback_records=self._ingestion.fallback_records,
            key_service=self._client.counts_since(self._counts_before),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


def _parts_writer(settings: TaskSettings, prefix: str, task: ReadTask) -> PartsWriter:
    return PartsWriter(
        task_storage(settings.published_root),
        prefix,
        publication_id=settings.publication_id,
        group=settings.correlation_id,
        task_index=task.index,
        stride=settings.task_count,
    )


@lru_cache(maxsize=4)
def task_storage(root: str) -> Storage:
    """Return the storage of a root, opened once in the life of the worker: an S3 client takes 0.3 s to make."""
    return open_storage(root)
