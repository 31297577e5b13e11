"""Checks of one day's published records: counts reconcile, no offset is there twice or missing, rejects.

Each reads the publication's own mark, the report and the pinned input that the mark names, and the stored parts. A run
evaluates them for its day; the sensor reports those of the newest day again (`cdi_dagster.sensors.check_states`).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import daily_prefix, mark_key
from cdi_dagster.ingestion.status_rows import StepRecord
from cdi_dagster.interfaces import StatusTable
from cdi_dagster.own_tags import add_own_tags
from cdi_dagster.published.counts import count_mismatches, missing_records, overlapping_offsets, rows_elsewhere
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
        day = collection.on(_storage_day(context, asset))
        result = counts_result(roots.published, day)
        if not result.passed:
            run = context.op_execution_context
            tag = {names.FAILURE_CLASS_TAG: FailureClass.COUNTS_DO_NOT_RECONCILE.value}
            add_own_tags(run.instance, run.run_id, tag)
            _record_mismatch(status_table, day, run.run_id, result.description or "")
        return result

    @dg.asset_check(
        asset=asset,
        description="No Kafka offset is in two objects (an error), and none is missing between or inside objects "
        "(a warning: compacted topics and lost batches both look like this).",
    )
    def offsets_are_whole(
        context: dg.AssetCheckExecutionContext, roots: dg.ResourceParam[Roots]
    ) -> dg.AssetCheckResult:
        return offsets_result(roots.published, collection.on(_storage_day(context, asset)))

    @dg.asset_check(
        asset=asset,
        description="No envelope was rejected. Rejects within the limit are a warning; rejects that were counted but "
        "not kept are an error.",
    )
    def nothing_rejected(context: dg.AssetCheckExecutionContext, roots: dg.ResourceParam[Roots]) -> dg.AssetCheckResult:
        return rejects_result(roots.published, collection.on(_storage_day(context, asset)))

    if not collection.is_keyed:
        return counts_reconcile, offsets_are_whole, nothing_rejected

    @dg.asset_check(
        asset=asset,
        name=names.ID_PARTS_CHECK,
        description="Every row's `id_part` is two hexadecimal digits, as in production's ids (else a warning).",
    )
    def id_parts(context: dg.AssetCheckExecutionContext, roots: dg.ResourceParam[Roots]) -> dg.AssetCheckResult:
        return id_parts_result(roots.published, collection.on(_storage_day(context, asset)))

    return counts_reconcile, offsets_are_whole, nothing_rejected, id_parts


def counts_result(published: Storage, day: CollectionDay) -> dg.AssetCheckResult:
    """Return the result of `counts_reconcile` for a published day."""
    try:
        publication = _require_publication(published, day)
    except CdiError as error:
        return _result(day, [error.cause], dg.AssetCheckSeverity.ERROR)
    problems = count_mismatches(publication, published.list(daily_prefix(day)))
    totals = {name: publication.report.totals[name] for name in ("read", "published", "rejected", "objects")}
    return _result(day, problems, dg.AssetCheckSeverity.ERROR, publication.mark.correlation_id, **totals)


def offsets_result(published: Storage, day: CollectionDay) -> dg.AssetCheckResult:
    """Return the result of `offsets_are_whole` for a published day.

    Raises:
        CdiError: the publication cannot be read.
    """
    publication = _require_publication(published, day)
    overlaps = overlapping_offsets(publication.pinned)
    missing = missing_records(publication.pinned, publication.report)
    return _result(
        day,
        overlaps + missing,
        dg.AssetCheckSeverity.ERROR if overlaps else dg.AssetCheckSeverity.WARN,
        publication.mark.correlation_id,
        overlaps=len(overlaps),
        gaps=len(publication.pinned.gaps),
        missing_offsets=sum(gap.offset_count for gap in publication.pinned.gaps),
    )


def rejects_result(published: Storage, day: CollectionDay) -> dg.AssetCheckResult:
    """Return the result of `nothing_rejected` for a published day.

    Raises:
        CdiError: the publication cannot be read.
    """
    publication = _require_publication(published, day)
    report = publication.report
    problems = [f"{count} rejected: {reason}" for reason, count in report.totals["rejected_by_reason"].items()]
    severity = dg.AssetCheckSeverity.WARN
    kept = list(published.list(report.rejects_prefix)) if report.rejects_prefix else []
    if report.rejected and not kept:
        problems.append(f"{report.rejected} rejects were counted, but none are kept")
        severity = dg.AssetCheckSeverity.ERROR
    share = 100 * report.rejected / report.read if report.read else 0.0
    numbers = {"rejected": report.rejected, "rejected_percent": round(share, 4)}
    return _result(day, problems, severity, publication.mark.correlation_id, **numbers)


def id_parts_result(published: Storage, day: CollectionDay) -> dg.AssetCheckResult:
    """Return the result of `id_parts_are_hexadecimal` for a published day of a keyed collection.

    Raises:
        CdiError: the publication cannot be read.
    """
    mark = _require_publication(published, day).mark
    problems = rows_elsewhere(mark)
    return _result(day, problems, dg.AssetCheckSeverity.WARN, mark.correlation_id, **(mark.db_types or {}))


_RESULTS: Mapping[str, Callable[[Storage, CollectionDay], dg.AssetCheckResult]] = {
    names.COUNTS_CHECK: counts_result,
    "offsets_are_whole": offsets_result,
    names.REJECTS_CHECK: rejects_result,
}


def results_of(collection: Collection) -> Mapping[str, Callable[[Storage, CollectionDay], dg.AssetCheckResult]]:
    """Return what gives the result of each check of a collection, by the check's name."""
    return {**_RESULTS, names.ID_PARTS_CHECK: id_parts_result} if collection.is_keyed else _RESULTS


CHECK_OF_CLASS = {
    FailureClass.RECORDS_REJECTED: names.REJECTS_CHECK,
    FailureClass.COUNTS_DO_NOT_RECONCILE: names.COUNTS_CHECK,
}
"""The check that a failed run answers, by the failure's class: the day is not published for just what is checked."""


def unpublished_result(day: CollectionDay, cause: str) -> dg.AssetCheckResult:
    """Return the result of a check of a day that was not published for just what is checked."""
    return _result(day, [f"Storage day {day.storage_day} was not published: {cause}"], dg.AssetCheckSeverity.ERROR)


def unreadable_result(day: CollectionDay, cause: str) -> dg.AssetCheckResult:
    """Return the result of a check of a published day that cannot be checked, because what is published is damaged."""
    return _result(day, [f"Storage day {day.storage_day} cannot be checked: {cause}"], dg.AssetCheckSeverity.ERROR)


def evaluation_of(
    day: CollectionDay, name: str, result: dg.AssetCheckResult, *, run_id: str | None
) -> dg.AssetCheckEvaluation:
    """Return the evaluation that reports a result outside the run of the check, with the run whose day it is of."""
    return dg.AssetCheckEvaluation(
        asset_key=names.daily_records_key(day.collection),
        check_name=name,
        passed=bool(result.passed),
        severity=result.severity,
        description=result.description,
        metadata={**(result.metadata or {}), **({names.CHECKED_RUN: run_id} if run_id else {})},
    )


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


def _result(
    day: CollectionDay,
    problems: Sequence[str],
    severity: dg.AssetCheckSeverity,
    run_id: str | None = None,
    **numbers: float,
) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {names.CHECKED_DAY: day.storage_day.isoformat(), **numbers}
    if run_id:
        metadata[names.CHECKED_RUN] = run_id
    if problems:
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        metadata["problems"] = dg.MetadataValue.md("\n".join(f"- {text}" for text in [*problems[:_SHOWN], *more]))
    return dg.AssetCheckResult(
        passed=not problems,
        severity=severity,
        description=problems[0] if problems else None,
        metadata=metadata,
    )


def _record_mismatch(status_table: StatusTable, day: CollectionDay, run_id: str, problem: str) -> None:
    """Record the mismatch in the status row too: it may be COMPLETED by now, and downstream products read it."""
    record = StepRecord(
        day=day, correlation_id=run_id, dagster_run_id=run_id, table=status_table, step="counts_reconcile"
    )
    record.put("FAILED", f"{FailureClass.COUNTS_DO_NOT_RECONCILE}: {problem}")


def _require_publication(published: Storage, day: CollectionDay) -> Publication:
    publication = read_publication(published, day)
    if publication is None:
        raise CdiError(FailureClass.COUNTS_DO_NOT_RECONCILE, f"{published.uri(mark_key(day))} does not exist.")
    return publication
