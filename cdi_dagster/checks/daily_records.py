"""Checks of one day's published records: counts reconcile, no offset is there twice or missing, rejects.

Each reads the publication's own mark, the report and the pinned input that the mark names, and the stored parts.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import daily_records_prefix, mark_key
from cdi_dagster.ingestion.status_rows import StepRecord
from cdi_dagster.interfaces import StatusTable
from cdi_dagster.published.counts import count_mismatches, missing_records, overlapping_offsets
from cdi_dagster.published.read import Publication, read_publication
from cdi_dagster.storage.interface import Storage
from cdi_dagster.storage.roots import Roots

_SHOWN = 20


def daily_records_checks(collection: Collection) -> Sequence[dg.AssetChecksDefinition]:
    """Return the checks of a collection's daily records."""
    asset = names.daily_records_key(collection)

    @dg.asset_check(
        asset=asset,
        blocking=True,
        description="Read = published + rejected, object by object; the mark, the run report, the pinned input and the "
        "stored parts all state the same. Where they do not, no table is published.",
    )
    def counts_reconcile(
        context: dg.AssetCheckExecutionContext,
        roots: dg.ResourceParam[Roots],
        status_table: dg.ResourceParam[StatusTable],
    ) -> dg.AssetCheckResult:
        storage_day = _storage_day(context, asset)
        try:
            publication = _require_publication(roots.published, collection.on(storage_day))
        except CdiError as error:
            problems, totals = [error.cause], {}
        else:
            stored = roots.published.list(daily_records_prefix(collection.on(storage_day)))
            problems = count_mismatches(publication, stored)
            totals = {name: publication.report.totals[name] for name in ("read", "published", "rejected", "objects")}
        if problems:
            run = context.op_execution_context
            tag = {names.FAILURE_CLASS_TAG: FailureClass.COUNTS_DO_NOT_RECONCILE.value}
            run.instance.add_run_tags(run.run_id, tag)
            _record_mismatch(status_table, collection.on(storage_day), run.run_id, problems)
        return _result(problems, dg.AssetCheckSeverity.ERROR, **totals)

    @dg.asset_check(
        asset=asset,
        description="No Kafka offset is in two objects (an error), and none is missing between or inside objects "
        "(a warning: compacted topics and lost batches both look like this).",
    )
    def offsets_are_whole(
        context: dg.AssetCheckExecutionContext, roots: dg.ResourceParam[Roots]
    ) -> dg.AssetCheckResult:
        publication = _require_publication(roots.published, collection.on(_storage_day(context, asset)))
        overlaps = overlapping_offsets(publication.pinned)
        missing = missing_records(publication.pinned, publication.report)
        severity = dg.AssetCheckSeverity.ERROR if overlaps else dg.AssetCheckSeverity.WARN
        return _result(
            overlaps + missing,
            severity,
            overlaps=len(overlaps),
            gaps=len(publication.pinned.gaps),
            missing_offsets=sum(gap.offset_count for gap in publication.pinned.gaps),
        )

    @dg.asset_check(
        asset=asset,
        description="No envelope was rejected. Rejects within the limit are a warning; rejects that were counted but "
        "not kept are an error.",
    )
    def nothing_rejected(context: dg.AssetCheckExecutionContext, roots: dg.ResourceParam[Roots]) -> dg.AssetCheckResult:
        report = _require_publication(roots.published, collection.on(_storage_day(context, asset))).report
        problems = [f"{count} rejected: {reason}" for reason, count in report.totals["rejected_by_reason"].items()]
        severity = dg.AssetCheckSeverity.WARN
        kept = list(roots.published.list(report.rejects_prefix)) if report.rejects_prefix else []
        if report.rejected and not kept:
            problems.append(f"{report.rejected} rejects were counted, but none are kept")
            severity = dg.AssetCheckSeverity.ERROR
        share = 100 * report.rejected / report.read if report.read else 0.0
        return _result(problems, severity, rejected=report.rejected, rejected_percent=round(share, 4))

    return counts_reconcile, offsets_are_whole, nothing_rejected


def _storage_day(context: dg.AssetCheckExecutionContext, asset: dg.AssetKey) -> date:
    """Return the day of the run; for a check executed alone, which has no partition, the day materialised last."""
    op_context = context.op_execution_context
    if op_context.has_partition_key:
        return parse_day(op_context.partition_key)
    latest = op_context.instance.get_latest_materialization_event(asset)
    materialization = latest.asset_materialization if latest else None
    if materialization is None or materialization.partition is None:
        raise dg.Failure(f"No day of {asset.to_user_string()} was materialised yet.", allow_retries=False)
    return parse_day(materialization.partition)


def _result(problems: Sequence[str], severity: dg.AssetCheckSeverity, **numbers: float) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = dict(numbers)
    if problems:
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        metadata["problems"] = dg.MetadataValue.md("\n".join(f"- {text}" for text in [*problems[:_SHOWN], *more]))
    return dg.AssetCheckResult(
        passed=not problems,
        severity=severity,
        description=problems[0] if problems else None,
        metadata=metadata,
    )


def _record_mismatch(status_table: StatusTable, day: CollectionDay, run_id: str, problems: Sequence[str]) -> None:
    """Record the mismatch in the status row too: it may be COMPLETED by now, and downstream products read it."""
    record = StepRecord(
        day=day, correlation_id=run_id, dagster_run_id=run_id, table=status_table, step="counts_reconcile"
    )
    record.put("FAILED", f"{FailureClass.COUNTS_DO_NOT_RECONCILE}: {problems[0]}")


def _require_publication(published: Storage, day: CollectionDay) -> Publication:
    publication = read_publication(published, day)
    if publication is None:
        raise CdiError(FailureClass.COUNTS_DO_NOT_RECONCILE, f"{published.uri(mark_key(day))} does not exist.")
    return publication
