"""What every asset does around its step: one run of a day, its status row, and a failure that a person can act on.

`recorded_step` is the only place where a `CdiError` becomes a Dagster failure.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import dagster as dg

from cdi_dagster import names
from cdi_dagster.assets.attempts import attempts_metadata
from cdi_dagster.assets.reject_report import reject_metadata
from cdi_dagster.checks.daily_records import CHECK_OF_CLASS, evaluation_of, unpublished_result
from cdi_dagster.clock import utc_now
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.failures import FAILURE_GUIDE, CdiError, FailureClass
from cdi_dagster.core.lost_offsets import LISTING_DETAIL
from cdi_dagster.core.snapshot_decision import due_snapshots
from cdi_dagster.core.storage_keys import snapshot_prefix
from cdi_dagster.ingestion.status_rows import StepRecord, failure_of, recorded
from cdi_dagster.interfaces import StatusTable
from cdi_dagster.own_tags import own_tags
from cdi_dagster.partitions import storage_day_in
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.resources.runbook import runbook_section
from cdi_dagster.run_records import (
    assets_of_run,
    interruption_of,
    is_sensor_on,
    missing_of,
    past_runs,
    require_only_run,
    require_only_snapshot_run,
    tags_to_read,
)


@contextmanager
def recorded_step(
    context: dg.AssetExecutionContext,
    collection: Collection,
    name: str,
    *,
    status_table: StatusTable,
    options: IngestOptions,
    automation: Automation,
    followed_by: tuple[dg.AssetKey, ...] = (),
) -> Iterator[StepRecord]:
    """Keep the status row around an asset's work (`ingestion.status_rows`), and make its failure readable.

    Args:
        context: of the asset.
        collection: what it works on.
        name: of the step.
        status_table: where the rows go.
        options: for the runbook link.
        automation: for what happens by itself after a failure.
        followed_by: assets that come after; where the run holds one of them, this step leaves the row IN_PROGRESS.

    Raises:
        dagster.Failure: with class, cause, owner, next step and runbook link as metadata.
    """
    record = _record(context, collection.on(storage_day_in(context)), name, status_table, followed_by)
    if assets_of_run(context).issubset({names.coalesced_key(collection), *names.keys_of(collection)}):
        _tag(context, tags_to_read(collection, record.day.storage_day))

    def what_happens(failure: CdiError) -> str:
        _report_check(context, record.day, failure)
        runs = past_runs(context.instance, collection, [record.day.storage_day])[record.day.storage_day]
        switched = _as_switched(context, names.completion_sensor_name(collection), automation)
        return switched.after(failure.failure_class, record.day.storage_day, runs, utc_now())

    with _recorded(context, record, require_only_run, options=options, what_happens=what_happens) as step:
        yield step


@contextmanager
def recorded_snapshot(
    context: dg.AssetExecutionContext,
    snapshot: CollectionDay,
    name: str,
    *,
    status_table: StatusTable,
    options: IngestOptions,
    automation: Automation,
    followed_by: tuple[dg.AssetKey, ...] = (),
) -> Iterator[StepRecord]:
    """Keep the status row around the making of a snapshot, with its prefix from the beginning; else as `recorded_step`.

    Args:
        context: of the asset.
        snapshot: what is made, as `published.snapshots.snapshot_of` names it.
        name: of the step.
        status_table: where the rows go.
        options: for the runbook link.
        automation: whether snapshots are made by themselves.
        followed_by: as of `recorded_step`.
    """
    record = _record(context, snapshot, name, status_table, followed_by)
    record.snapshot_prefix = snapshot_prefix(snapshot)
    _tag(context, tags_to_read(snapshot.collection, snapshot.storage_day))

    def what_happens(failure: CdiError) -> str:
        switched = _as_switched(context, names.snapshot_sensor_name(snapshot.collection), automation)
        if switched.is_on and snapshot.export_day in due_snapshots(automation.calendar, utc_now()):
            return FAILURE_GUIDE[failure.failure_class].by_itself
        return "Nothing: materialise the snapshot when the cause is fixed."

    with _recorded(context, record, require_only_snapshot_run, options=options, what_happens=what_happens) as step:
        yield step


def _record(
    context: dg.AssetExecutionContext,
    day: CollectionDay,
    name: str,
    status_table: StatusTable,
    followed_by: tuple[dg.AssetKey, ...],
) -> StepRecord:
    return StepRecord(
        day=day,
        correlation_id=context.run.run_id,
        dagster_run_id=context.run.run_id,
        table=status_table,
        step=name,
        ends_run=not assets_of_run(context).intersection(followed_by),
    )


@contextmanager
def _recorded(
    context: dg.AssetExecutionContext,
    record: StepRecord,
    require_only: Callable[[dg.AssetExecutionContext, Collection], None],
    *,
    options: IngestOptions,
    what_happens: Callable[[CdiError], str],
) -> Iterator[StepRecord]:
    interruption = cache(lambda: interruption_of(context))  # once: row and tag must not differ
    for missing in missing_of(context.instance):
        context.log.warning(f"This Dagster lacks {missing}. Copy deploy/dagster.yaml into DAGSTER_HOME and restart it.")
    try:
        require_only(context, record.day.collection)
        with recorded(record, log=context.log.error, interruption=interruption) as step:
            yield step
    except dg.DagsterExecutionInterruptedError:
        if failure := interruption():
            _tag_class(context, failure)
        raise
    except Exception as error:
        failure = failure_of(error, record.step)
        _tag_class(context, failure)
        try:
            by_itself = what_happens(failure)
        except Exception as unread:  # noqa: BLE001 - raising here would hide why the step failed
            by_itself = f"Not known: Dagster's records could not be read ({type(unread).__name__})."
        raise as_failure(failure, options, by_itself) from error


def _report_check(context: dg.AssetExecutionContext, day: CollectionDay, error: CdiError) -> None:
    """Turn the check red that the failure is about: it runs on published days only, and would show the day before."""
    name = CHECK_OF_CLASS.get(error.failure_class)
    if name:
        result = unpublished_result(day, f"{error.failure_class}: {error.cause}")
        context.log_event(evaluation_of(day, name, result, run_id=context.run.run_id))


def as_failure(error: CdiError, options: IngestOptions, by_itself: str) -> dg.Failure:
    """Return the failure as the run page shows it. Dagster must not retry: our classes decide what is retried."""
    guidance = FAILURE_GUIDE[error.failure_class]
    metadata: dict[str, Any] = {
        "failure_class": str(error.failure_class),
        "cause": error.cause,
        "next_step": error.next_step,
        "what_happens_by_itself": by_itself,
        "owner": guidance.owner,
        "rerun_helps": guidance.rerun_helps,
        "runbook": _link(options.runbook_link(error.failure_class)),
        "what_to_do": dg.MetadataValue.md(runbook_section(error.failure_class, by_itself)),
    }
    if "last_log_lines" in error.detail:
        metadata["last_log_lines"] = dg.MetadataValue.md(f"```\n{error.detail['last_log_lines']}\n```")
    if "attempts" in error.detail:
        metadata["attempts"] = attempts_metadata(error.detail["attempts"])
    detail = {name: value for name, value in error.detail.items() if name != "last_log_lines"}
    if error.failure_class is FailureClass.RECORDS_REJECTED and detail:
        metadata |= reject_metadata(detail.pop("rejected_by_reason", {}), detail.pop("samples", ()))
    if detail:
        metadata["detail"] = dg.MetadataValue.json(detail)
    return dg.Failure(description=str(error), metadata=metadata, allow_retries=False)


def _as_switched(context: dg.AssetExecutionContext, sensor: str, automation: Automation) -> Automation:
    return replace(automation, is_on=is_sensor_on(context.instance, sensor, default=automation.is_on))


def _link(place: str) -> dg.MetadataValue:
    # Browsers do not open a local file from a web page; by default the runbook is a file of the checkout.
    return dg.MetadataValue.url(place) if place.startswith(("http://", "https://")) else dg.MetadataValue.path(place)


def _tag_class(context: dg.AssetExecutionContext, error: CdiError) -> None:
    tags = {names.FAILURE_CLASS_TAG: str(error.failure_class)}
    if LISTING_DETAIL in error.detail:
        tags[names.LISTING_TAG] = error.detail[LISTING_DETAIL]
    _tag(context, own_tags(context.run.run_id, tags))


def _tag(context: dg.AssetExecutionContext, tags: dict[str, str]) -> None:
    try:
        context.instance.add_run_tags(context.run.run_id, tags)
    except Exception as tag_error:  # noqa: BLE001
        # As with the row: raising here would hide why the step failed. The failed runs sensor sets the class too.
        context.log.exception(f"The run could not be tagged with {', '.join(tags)}: {type(tag_error).__name__}")
