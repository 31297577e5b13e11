"""One Spark task of `ingest_daily`: pinned objects in, prepared parts of records and rejects out, and the counts.

Runs in Spark's Python workers; the driver's side is `ingest_daily`. Nothing it makes is visible until the driver
publishes it. A failure comes back as a value: raised, Spark would try the task again (three more calls to a key
service that refuses us) and write the error's text, which may hold payload, to its log.
"""

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Final

from pyspark import Accumulator

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.ingest_report import KeyServiceCounts, ObjectCounts, RejectReason, RejectSample
from cdi_dagster.core.pinned_input import PinnedObject
from cdi_dagster.spark.key_service import KeyServiceConfig, shared_client
from cdi_dagster.spark.planning import ReadTask
from cdi_dagster.spark.progress import ProgressAddress, ProgressSender
from cdi_dagster.spark.read_ahead import opened
from cdi_dagster.spark.reading import MAX_ENVELOPE_BYTES, EnvelopeBlock, EnvelopeReader, OverlongEnvelope
from cdi_dagster.spark.records.engine import RecordEngine
from cdi_dagster.spark.writing import PartsWriter, WrittenPart, overlong_reject_line, reject_line
from cdi_dagster.storage import Storage, StorageError, open_storage, storage_failure

SAMPLES_PER_REASON: Final = 5
"""Places shown per reject reason; the rejects themselves hold them all."""


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
        progress: where to say how far the task is.
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


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What one task made and counted.

    Attributes:
        objects: counts of each object it read.
        parts: of records.
        rejects: parts of rejects.
        reject_samples: a few places by reason.
        fallback_records: records that took the plain algorithm.
        key_service: what the task asked of it.
    """

    objects: tuple[ObjectCounts, ...]
    parts: tuple[WrittenPart, ...]
    rejects: tuple[WrittenPart, ...]
    reject_samples: tuple[RejectSample, ...]
    fallback_records: int
    key_service: KeyServiceCounts


def run_tasks(
    settings: TaskSettings, failures: "Accumulator[list[dict[str, object]]]", tasks: Iterator[ReadTask]
) -> Iterator[TaskResult]:
    """Run the tasks of one Spark partition; a failed one adds to `failures`, which the driver watches."""
    for task in tasks:
        try:
            result = _run(settings, task)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - travels to the driver without its text; Rust's panics too
            failures.add([task_failure(error).to_json()])
        else:
            yield result


def task_failure(error: BaseException) -> CdiError:
    """Return the failure that an error in a task is, without payload: of an unforeseen error only type and place."""
    if isinstance(error, CdiError):
        return error
    if isinstance(error, StorageError):
        return storage_failure(error)
    if isinstance(error, MemoryError):
        return CdiError(FailureClass.OUT_OF_MEMORY, "A Python worker ran out of memory.")
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return CdiError(
        FailureClass.JOB_FAILED,
        f"A task failed with {type(error).__name__} in {frame.name} ({frame.filename.rpartition('/')[2]}, line "
        f"{frame.lineno}). Its text is not shown: it may hold payload.",
    )


def _run(settings: TaskSettings, task: ReadTask) -> TaskResult:
    client = shared_client(settings.key_service)
    counts_before = client.counts
    with (
        _parts_writer(settings, settings.records_prefix, task) as records,
        _parts_writer(settings, settings.rejects_prefix, task) as rejects,
        closing(ProgressSender(settings.progress, task.index)) as progress,
    ):
        ingestion = _TaskIngestion(settings, RecordEngine(settings.collection, client), records, rejects, progress)
        objects = ingestion.ingest(task)
        return TaskResult(
            objects=objects,
            parts=records.finish(),
            rejects=rejects.finish(),
            reject_samples=tuple(ingestion.samples),
            fallback_records=ingestion.fallback_records,
            key_service=client.counts_since(counts_before),
        )


def _parts_writer(settings: TaskSettings, prefix: str, task: ReadTask) -> PartsWriter:
    return PartsWriter(
        _storage(settings.published_root),
        prefix,
        publication_id=settings.publication_id,
        group=settings.correlation_id,
        task_index=task.index,
        stride=settings.task_count,
    )


class _TaskIngestion:
    """Carries the envelopes of one task's objects through the engine to the writers."""

    def __init__(
        self,
        settings: TaskSettings,
        engine: RecordEngine,
        records: PartsWriter,
        rejects: PartsWriter,
        progress: ProgressSender,
    ) -> None:
        self.samples: list[RejectSample] = []
        self.fallback_records = 0
        self._settings = settings
        self._engine = engine
        self._records = records
        self._rejects = rejects
        self._progress = progress
        self._objects_done = 0
        self._bytes_done = 0
        self._sampled: Counter[str] = Counter()

    def ingest(self, task: ReadTask) -> tuple[ObjectCounts, ...]:
        """Ingest every object of the task and return the counts of each."""
        counted = []
        with closing(opened(_storage(self._settings.corporate_root), task.objects)) as streams:
            for pinned, stream in streams:
                counts = self._ingest_object(pinned, stream)
                counted.append(counts)
                self._objects_done += 1
                self._bytes_done += counts.compressed_bytes
        self._say_progress(0, last=True)
        return tuple(counted)

    def _ingest_object(self, pinned: PinnedObject, stream: BinaryIO) -> ObjectCounts:
        reader = EnvelopeReader(stream, pinned.key)
        published = 0
        rejected: Counter[str] = Counter()
        for block in reader.blocks():
            if isinstance(block, OverlongEnvelope):
                self._reject_overlong(pinned, block)
                rejected[RejectReason.ENVELOPE.value] += 1
            else:
                published += self._ingest_block(pinned, block, rejected)
            self._say_progress(reader.compressed_bytes)
        return ObjectCounts(
            key=pinned.key,
            read=reader.envelopes,
            published=published,
            rejected=dict(rejected),
            blank_lines=reader.blank_lines,
            compressed_bytes=reader.compressed_bytes,
        )

    def _ingest_block(self, pinned: PinnedObject, block: EnvelopeBlock, rejected: "Counter[str]") -> int:
        result = self._engine.process(block.lines)
        self._records.write(result.records, result.published)
        self.fallback_records += result.fallbacks
        for reject in result.rejects:
            line_number = block.line_numbers[reject.index]
            line = reject_line(
                reason=reject.reason,
                detail=reject.detail,
                key=pinned.key,
                line_number=line_number,
                offset=self._offset(pinned, block.first_index + reject.index),
                envelope=block.lines[reject.index],
            )
            self._rejects.write(line, 1)
            self._sample(reject.reason, reject.detail, pinned.key, line_number)
            rejected[reject.reason.value] += 1
        return result.published

    def _reject_overlong(self, pinned: PinnedObject, overlong: OverlongEnvelope) -> None:
        detail = f"the line is {overlong.size_bytes} bytes long; {MAX_ENVELOPE_BYTES} is the most an envelope may be"
        offset = self._offset(pinned, overlong.index)
        self._rejects.write(overlong_reject_line(overlong, detail=detail, key=pinned.key, offset=offset), 1)
        self._sample(RejectReason.ENVELOPE, detail, pinned.key, overlong.line_number)

    def _offset(self, pinned: PinnedObject, index: int) -> int | None:
        return pinned.name.first_offset + index if self._settings.dense_offsets else None

    def _sample(self, reason: RejectReason, detail: str, key: str, line_number: int) -> None:
        self._sampled[reason.value] += 1
        if self._sampled[reason.value] <= SAMPLES_PER_REASON:
            self.samples.append(RejectSample(reason=reason.value, detail=detail, key=key, line_number=line_number))

    def _say_progress(self, bytes_of_current: int, *, last: bool = False) -> None:
        self._progress.done(objects=self._objects_done, compressed_bytes=self._bytes_done + bytes_of_current, last=last)


@lru_cache(maxsize=4)
def _storage(root: str) -> Storage:
    """Return the storage of a root, opened once in the life of the worker: an S3 client takes 0.3 s to make."""
    return open_storage(root)
