"""Publishing a day: rejects, then the report, then the records with their mark last.

A kill between two of these leaves the day as it was before, and every mark names a report that exists. The caller holds
the day's ingestion lease, or runs on behalf of its holder.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.ingest_report import IngestReport
from cdi_dagster.core.storage_keys import daily_prefix, rejects_prefix, run_report_key, runs_prefix
from cdi_dagster.published.mark import Mark, PublishedPart
from cdi_dagster.published.read import read_mark
from cdi_dagster.storage import PreparedObject, Storage


@dataclass(frozen=True, kw_only=True)
class WrittenPart:
    """One part, written durably but not visible yet.

    Attributes:
        prepared: what publishes it.
        lines: records, or rejects, in it.
        text_bytes: bytes of its lines before compression, newlines included.
        deletes: of rows of a keyed collection, how many are DELETEs.
    """

    prepared: PreparedObject
    lines: int
    text_bytes: int
    deletes: int = 0


@dataclass(frozen=True, kw_only=True)
class IngestOutcome:
    """All that a run made of a day; nothing of it is visible yet.

    Attributes:
        report: counts.
        parts: of records, in order of their keys.
        rejects: parts of rejects, in order of their keys.
    """

    report: IngestReport
    parts: tuple[WrittenPart, ...]
    rejects: tuple[WrittenPart, ...]


def begin_ingestion(published: Storage, day: CollectionDay, correlation_id: str) -> None:
    """Complete what killed runs of the day had decided to publish, and remove everything else that they left.

    An earlier report of this same run is removed too, unless what is published names it.
    """
    for prefix in (daily_prefix(day), runs_prefix(day)):
        published.recover(prefix)
    discard_uploads(published, day, group=None)
    try:
        mark = read_mark(published, day)
    except CdiError:
        mark = None  # this run rewrites it
    if mark is None or mark.correlation_id != correlation_id:
        published.delete([run_report_key(day, correlation_id)])


def discard_uploads(published: Storage, day: CollectionDay, *, group: str | None) -> None:
    """Remove the records and rejects of the day that a run wrote but did not decide to publish.

    Args:
        published: where it wrote them.
        day: which it ingested.
        group: its correlation id; None for those of every run, only while the day's lease is held.
    """
    for prefix in (daily_prefix(day), runs_prefix(day)):
        published.discard(prefix, group=group)


def publish_day(
    published: Storage,
    day: CollectionDay,
    outcome: IngestOutcome,
    *,
    correlation_id: str,
    seconds: float,
    replayed_from: str | None = None,
) -> IngestReport:
    """Publish what a run made of a day, and return its closing report.

    Raises:
        StorageError: something could not be written; the published records are as they were, or `recover` completes
            them.
    """
    prefix = daily_prefix(day)
    rejects = _keep_rejects(published, day, outcome, correlation_id)
    report = replace(outcome.report, seconds=round(seconds, 3), published_prefix=prefix, rejects_prefix=rejects)
    _write_report(published, day, report, correlation_id)
    mark = Mark(
        fingerprint=report.fingerprint,
        correlation_id=correlation_id,
        collection_id=day.collection.id,
        storage_day=day.storage_day,
        published=report.published,
        rejected=report.rejected,
        record_bytes=report.record_bytes,
        published_bytes=report.published_bytes,
        parts=tuple(
            PublishedPart(key=part.prepared.key, size_bytes=part.prepared.size_bytes, records=part.lines)
            for part in outcome.parts
        ),
        published_at=_now(),
        replayed_from=replayed_from,
        db_types=report.db_types,
    )
    published.publish(prefix, _prepared(outcome.parts), mark.to_bytes(), group=correlation_id)
    return report


def withhold_day(
    published: Storage,
    day: CollectionDay,
    outcome: IngestOutcome,
    *,
    correlation_id: str,
    seconds: float,
    keep_rejects: bool = True,
) -> IngestReport:
    """Keep rejects and report of a day whose records must not be published, and return the report."""
    rejects = _keep_rejects(published, day, outcome, correlation_id) if keep_rejects else None
    report = replace(outcome.report, seconds=round(seconds, 3), published_prefix=None, rejects_prefix=rejects)
    _write_report(published, day, report, correlation_id)
    return report


def _keep_rejects(published: Storage, day: CollectionDay, outcome: IngestOutcome, correlation_id: str) -> str | None:
    prefix = rejects_prefix(day, correlation_id)
    if not outcome.rejects:
        published.delete([stored.key for stored in published.list(prefix)])  # of an earlier attempt of this run
        return None
    mark: dict[str, Any] = {
        "fingerprint": outcome.report.fingerprint,
        "correlation_id": correlation_id,
        "rejected": outcome.report.rejected,
        "rejected_by_reason": outcome.report.totals["rejected_by_reason"],
        "parts": [
            {"key": part.prepared.key, "size_bytes": part.prepared.size_bytes, "rejects": part.lines}
            for part in outcome.rejects
        ],
        "written_at": f"{_now():%Y-%m-%dT%H:%M:%SZ}",
    }
    published.publish(prefix, _prepared(outcome.rejects), json.dumps(mark, indent=1).encode(), group=correlation_id)
    return prefix


def _write_report(published: Storage, day: CollectionDay, report: IngestReport, correlation_id: str) -> None:
    # As an upload of the run, so that `discard_uploads` finds what a kill leaves.
    with published.upload(run_report_key(day, correlation_id), group=correlation_id) as upload:
        upload.write(json.dumps(report.to_json(), indent=1).encode())
        upload.complete()


def _prepared(parts: Iterable[WrittenPart]) -> list[PreparedObject]:
    return [part.prepared for part in parts]


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
