"""Ingests the rejects of a published day again, once their cause is fixed: for example, a key that was restored.

What becomes a record now is published beside the records that were there, in one publication: whole or as before.
What is rejected again is kept again. Rejects are few by nature, so this runs in one process, without Spark.
"""

import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import orjson

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.ingest_report import (
    IngestReport,
    KeyServiceCounts,
    ObjectCounts,
    RejectReason,
    RejectSample,
    reconcile,
)
from cdi_dagster.core.object_names import parse_object_name
from cdi_dagster.core.storage_keys import daily_prefix, rejects_prefix
from cdi_dagster.published.publish import IngestOutcome, WrittenPart, begin_ingestion, discard_uploads, publish_day
from cdi_dagster.published.read import Publication, read_publication
from cdi_dagster.spark.ingest.outcome import count_db_types, require_all_written
from cdi_dagster.spark.ingest.rejects import StoredReject, stored_rejects
from cdi_dagster.spark.ingest.rows import Row, RowFiles
from cdi_dagster.spark.ingest.writing import PartsWriter
from cdi_dagster.spark.key_service.client import KeyServiceClient, KeyServiceConfig
from cdi_dagster.spark.records.engine import BlockResult, RecordEngine
from cdi_dagster.storage import Storage

_BLOCK: Final = 256
_COPY_BYTES: Final = 1024 * 1024
_SAMPLES: Final = 20


@dataclass(frozen=True, kw_only=True)
class ReplaySummary:
    """What a replay did.

    Attributes:
        replayed: rejects that were tried again.
        recovered: of these, records now published.
        still_rejected: the others, by reason.
        report: the closing report of the publication as it is now.
    """

    replayed: int
    recovered: int
    still_rejected: Mapping[str, int]
    report: IngestReport


def begin_replay(published: Storage, day: CollectionDay, correlation_id: str) -> Publication:
    """Settle what killed runs of the day left, and return what is published. The caller holds the day's lease.

    Raises:
        CdiError: INPUT_INVALID where nothing is published, or what the mark names cannot be read.
    """
    begin_ingestion(published, day, correlation_id)
    publication = read_publication(published, day)
    if publication is None:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{day} is not published, so there is nothing to add its rejects to.",
            next_step="Fix the cause, then run the day again: everything is then read again.",
        )
    return publication


def replay_rejects(publication: Publication, published: Storage, key_service: KeyServiceConfig) -> ReplaySummary:
    """Try every reject of a publication again and publish what became a record.

    `key_service.correlation_id` is the id of this replay: its report, its remaining rejects and the publication's
    mark carry it. Where nothing could be recovered the publication stays as it is.

    Raises:
        CdiError: DKS_UNAVAILABLE or DKS_FORBIDDEN from the key service; COUNTS_DO_NOT_RECONCILE where the result does
            not add up. Nothing was published then.
    """
    replay = _Replay(publication, published, key_service)
    try:
        return replay.run()
    finally:
        discard_uploads(published, publication.day, group=key_service.correlation_id)


class _Replay:
    def __init__(self, publication: Publication, published: Storage, key_service: KeyServiceConfig) -> None:
        self._started = time.monotonic()
        self._before = publication
        self._day = publication.day
        self._published = published
        self._config = key_service
        self._group = key_service.correlation_id
        self._publication_id = uuid.uuid4().hex[:12]
        self._records_prefix = daily_prefix(self._day)
        self._rejects_prefix = rejects_prefix(self._day, self._group)
        self._recovered: Counter[str] = Counter()
        self._rejected: dict[str, Counter[str]] = defaultdict(Counter)
        self._samples: list[RejectSample] = []
        self._fallbacks = 0

    def run(self) -> ReplaySummary:
        old_rejects = stored_rejects(self._published, self._before.report.rejects_prefix)
        client = KeyServiceClient(self._config)
        try:
            records, rejects = self._try_again(old_rejects, client)
            key_service = client.counts
        finally:
            client.close()
        recovered = sum(self._recovered.values())
        if not recovered:
            return self._summary(self._before.report)
        copied = self._copy_published_parts(first_number=len(records))
        outcome = IngestOutcome(
            report=self._new_report(records, copied, key_service), parts=(*records, *copied), rejects=rejects
        )
        reconcile(self._before.pinned, outcome.report.objects, allow_sparse_offsets=True)
        require_all_written(outcome)
        report = publish_day(
            self._published,
            self._day,
            outcome,
            correlation_id=self._group,
            seconds=time.monotonic() - self._started,
            replayed_from=self._before.mark.correlation_id,
        )
        return self._summary(report)

    def _try_again(
        self, old_rejects: Iterator[StoredReject], client: KeyServiceClient
    ) -> tuple[tuple[WrittenPart, ...], tuple[WrittenPart, ...]]:
        engine = RecordEngine(self._day.collection, client)
        rows = RowFiles(self._published, self._records_prefix, publication_id=self._publication_id, group=self._group)
        with self._writer(self._records_prefix) as records, self._writer(self._rejects_prefix) as rejects:
            while block := list(islice(old_rejects, _BLOCK)):
                kept, result = self._try_block(engine, block, rejects)
                if self._day.collection.is_keyed:
                    for row in _rows_again(kept, result):
                        rows.add(row)
                else:
                    records.write(result.records, result.published)
            return (*records.finish(), *rows.finish()), rejects.finish()

    def _try_block(
        self, engine: RecordEngine, block: list[StoredReject], rejects: PartsWriter
    ) -> tuple[list[StoredReject], BlockResult]:
        """Return the rejects that were tried again, and what became of them."""
        kept_whole = [reject for reject in block if reject.envelope is not None]
        for reject in block:
            if reject.envelope is None:
                self._reject(rejects, reject, RejectReason(reject.reason), reject.detail)
        result = engine.process([reject.envelope or b"" for reject in kept_whole])
        self._fallbacks += result.fallbacks
        again = {rejected.index: rejected for rejected in result.rejects}
        for index, reject in enumerate(kept_whole):
            if index in again:
                self._reject(rejects, reject, again[index].reason, again[index].detail)
            else:
                self._recovered[reject.key] += 1
        return kept_whole, result

    def _reject(self, rejects: PartsWriter, reject: StoredReject, reason: RejectReason, detail: str) -> None:
        self._rejected[reject.key][str(reason)] += 1
        line = {**reject.line, "reason": str(reason), "detail": detail}
        rejects.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE), 1)
        if len(self._samples) < _SAMPLES:
            self._samples.append(
                RejectSample(reason=str(reason), detail=detail, key=reject.key, line_number=reject.line_number)
            )

    def _writer(self, prefix: str) -> PartsWriter:
        return PartsWriter(
            self._published, prefix, publication_id=self._publication_id, group=self._group, task_index=0, stride=1
        )

    def _copy_published_parts(self, *, first_number: int) -> tuple[WrittenPart, ...]:
        """Prepare the published parts again, byte for byte: a publication replaces the whole prefix."""
        copied = []
        for number, part in enumerate(self._before.mark.parts, start=first_number):
            folder, _, name = part.key.rpartition("/")
            key = f"{folder}/part-{number:05d}-{self._publication_id}.{name.partition('.')[2]}"
            with self._published.open(part.key) as source, self._published.upload(key, group=self._group) as copy:
                while chunk := source.read(_COPY_BYTES):
                    copy.write(chunk)
                copied.append(WrittenPart(prepared=copy.prepare(), lines=part.records, text_bytes=0))
        return tuple(copied)

    def _new_report(
        self, records: tuple[WrittenPart, ...], copied: tuple[WrittenPart, ...], key_service: KeyServiceCounts
    ) -> IngestReport:
        old = self._before.report
        return replace(
            old,
            objects=tuple(self._new_counts(counts) for counts in old.objects),
            record_bytes=old.record_bytes + sum(part.text_bytes for part in records),
            published_bytes=sum(part.prepared.size_bytes for part in (*records, *copied)),
            parts=len(records) + len(copied),
            fallback_records=old.fallback_records + self._fallbacks,
            key_service=key_service,
            reject_samples=tuple(self._samples),
            db_types=_sum(old.db_types, count_db_types(records)) if old.db_types else None,
        )

    def _new_counts(self, counts: ObjectCounts) -> ObjectCounts:
        return replace(
            counts,
            published=counts.published + self._recovered[counts.key],
            rejected=dict(sorted(self._rejected.get(counts.key, Counter()).items())),
        )

    def _summary(self, report: IngestReport) -> ReplaySummary:
        still: Counter[str] = Counter()
        for reasons in self._rejected.values():
            still.update(reasons)
        recovered = sum(self._recovered.values())
        return ReplaySummary(
            replayed=recovered + still.total(),
            recovered=recovered,
            still_rejected=dict(sorted(still.items())),
            report=report,
        )


def _rows_again(rejects: Sequence[StoredReject], result: BlockResult) -> Iterator[Row]:
    for (position, key, db_type), record in zip(result.rows, result.records.split(b"\n"), strict=False):
        reject = rejects[position]
        name = parse_object_name(reject.key)
        offset = reject.offset
        if offset is None:  # only its order is known
            offset = min(name.first_offset + reject.line_number - 1, name.last_offset)
        yield key.id, name.kafka_partition, offset, key.id_part, db_type.value, record


def _sum(before: Mapping[str, int], added: Mapping[str, int]) -> dict[str, int]:
    return {name: count + added[name] for name, count in before.items()}
