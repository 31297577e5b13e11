"""The outcome of all tasks of an ingestion: closing report, parts to publish, and whether they may be published.

Pure: from task results to values. Reading and publishing are `job`'s.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from cdi_dagster.core.collections import DbType, find_collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.ingest_report import IngestReport, KeyServiceCounts, ObjectCounts, RejectReason, RejectSample
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.core.reject_limit import RejectLimit
from cdi_dagster.published.publish import IngestOutcome, WrittenPart
from cdi_dagster.spark.ingest.objects import SAMPLES_PER_REASON
from cdi_dagster.spark.ingest.task import TaskResult

_RESTORE_KEY = (
    "Have the key that cdi rejects show names restored in the key service, then run the day again. A higher "
    "max_rejected would publish the day without these records."
)


def combine(pinned: PinnedInput, made: Sequence[TaskResult | WrittenPart]) -> IngestOutcome:
    """Add up what the tasks made; the objects come back into pinned order."""
    results = [each for each in made if isinstance(each, TaskResult)]
    of_rows = [each for each in made if isinstance(each, WrittenPart)]
    position = {pinned_object.key: number for number, pinned_object in enumerate(pinned.objects)}
    objects = sorted(
        _whole_objects(counts for result in results for counts in result.objects),
        key=lambda counts: position.get(counts.key, len(position)),
    )
    parts = _in_key_order([*of_rows, *(part for result in results for part in result.parts)])
    key_service = [result.key_service for result in results]
    report = IngestReport(
        fingerprint=pinned.fingerprint,
        objects=tuple(objects),
        record_bytes=sum(part.text_bytes for part in parts),
        published_bytes=sum(part.prepared.size_bytes for part in parts),
        parts=len(parts),
        fallback_records=sum(result.fallback_records for result in results),
        key_service=KeyServiceCounts(
            calls=sum(counts.calls for counts in key_service),
            cache_hits=sum(counts.cache_hits for counts in key_service),
            retries=sum(counts.retries for counts in key_service),
            seconds=round(sum(counts.seconds for counts in key_service), 3),
        ),
        reject_samples=_samples(results),
        seconds=0.0,
        published_prefix=None,
        rejects_prefix=None,
        db_types=count_db_types(parts) if find_collection(pinned.collection_id).is_keyed else None,
    )
    rejects = _in_key_order(part for result in results for part in result.rejects)
    return IngestOutcome(report=report, parts=parts, rejects=rejects)


def _whole_objects(made: Iterable[ObjectCounts]) -> list[ObjectCounts]:
    """Add up the parts of each object. What was read twice has more bytes than were pinned: `reconcile` finds it."""
    whole: dict[str, ObjectCounts] = {}
    for counts in made:
        before = whole.get(counts.key)
        whole[counts.key] = before + counts if before else counts
    return list(whole.values())


def count_db_types(parts: Iterable[WrittenPart]) -> dict[str, int]:
    """Return how many rows of each type the parts of a keyed collection hold."""
    rows = deletes = 0
    for part in parts:
        rows += part.lines
        deletes += part.deletes
    return {DbType.INSERT.value: rows - deletes, DbType.DELETE.value: deletes}


def require_all_written(outcome: IngestOutcome) -> None:
    """Check that the parts hold what was counted in the objects.

    Raises:
        CdiError: COUNTS_DO_NOT_RECONCILE, with both numbers.
    """
    for what, written, counted in (
        ("records", outcome.parts, outcome.report.published),
        ("rejects", outcome.rejects, outcome.report.rejected),
    ):
        lines = sum(part.lines for part in written)
        if lines != counted:
            raise CdiError(
                FailureClass.COUNTS_DO_NOT_RECONCILE, f"The parts hold {lines} {what}, but the objects gave {counted}."
            )


def require_few_rejects(report: IngestReport, limit: RejectLimit, *, rejects_uri: str) -> None:
    """Check the rejects against the limit.

    Raises:
        CdiError: RECORDS_REJECTED, with the counts by reason, samples, and where the rejects are.
    """
    if limit.allows(rejected=report.rejected, read=report.read):
        return
    by_reason = report.totals["rejected_by_reason"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in by_reason.items())
    raise CdiError(
        FailureClass.RECORDS_REJECTED,
        f"{report.rejected} of {report.read} envelopes were rejected ({reasons}); allowed are {limit.text}. "
        f"The rejects are in {rejects_uri}",
        next_step=_RESTORE_KEY if set(by_reason) == {RejectReason.KEY} else None,
        detail={
            "read": report.read,
            "rejected": report.rejected,
            "rejected_by_reason": by_reason,
            "max_rejected": limit.text,
            "samples": [asdict(sample) for sample in report.reject_samples],
            "rejects_uri": rejects_uri,
        },
    )


def _in_key_order(parts: Iterable[WrittenPart]) -> tuple[WrittenPart, ...]:
    return tuple(sorted(parts, key=lambda part: part.prepared.key))


def _samples(results: Sequence[TaskResult]) -> tuple[RejectSample, ...]:
    """Return a few samples of each reason, the same ones whichever task ended first."""
    taken: Counter[str] = Counter()
    samples = []
    found = (sample for result in results for sample in result.reject_samples)
    for sample in sorted(found, key=lambda sample: (sample.reason, sample.key, sample.line_number)):
        taken[sample.reason] += 1
        if taken[sample.reason] <= SAMPLES_PER_REASON:
            samples.append(sample)
    return tuple(samples)
