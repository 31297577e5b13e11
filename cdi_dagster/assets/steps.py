"""What every asset does around its step: one run of a day, its status row, and a failure that a person can act on.

`recorded_step` is the only place where a `CdiError` becomes a Dagster failure.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import dagster as dg

from cdi_dagster import names
from cdi_dagster.assets.attempts import attempts_metadata
from cdi_dagster.assets.reject_report import reject_metadata
from cdi_dagster.checks.daily_records import CHECK_OF_CLASS, evaluation_of, unpublished_result
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.failures import FAILURE_GUIDE, CdiError, FailureClass
from cdi_dagster.ingestion.status_rows import StepRecord, failure_of, recorded
from cdi_dagster.interfaces import StatusTable
from cdi_dagster.partitions import storage_day_in
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.resources.runbook import runbook_section
from cdi_dagster.run_records import assets_of_run, interruption_of, missing_of, require_only_run


@contextmanager
def recorded_step(
    context: dg.AssetExecutionContext,
    collection: Collection,
    name: str,
    *,
    status_table: StatusTable,
    options: IngestOptions,
    followed_by: tuple[dg.AssetKey, ...] = (),
) -> Iterator[StepRecord]:
    """Keep the status row around an asset's work (`ingestion.status_rows`), and make its failure readable.

    Args:
        context: of the asset.
        collection: what it works on.
        name: of the step.
        status_table: where the rows go.
        options: for the runbook link.
        followed_by: assets that come after; where the run holds one of them, this step leaves the row IN_PROGRESS.

    Raises:
        dagster.Failure: with class, cause, owner, next step and runbook link as metadata.
    """
    record = StepRecord(
        day=collection.on(storage_day_in(context)),
        correlation_id=context.run.run_id,
        dagster_run_id=context.run.run_id,
        table=status_table,
        step=name,
        ends_run=not assets_of_run(context).intersection(followed_by),
    )
    interruption = cache(lambda: interruption_of(context))  # once: row and tag must not differ
    for missing in missing_of(context.instance):
        context.log.warning(f"This Dagster lacks {missing}. Copy deploy/dagster.yaml into DAGSTER_HOME and restart it.")
    try:
        require_only_run(context, collection)
        with recorded(record, log=context.log.error, interruption=interruption) as step:
            yield step
    except dg.DagsterExecutionInterruptedError:
        if failure := interruption():
            _tag_class(context, failure)
        raise
    except Exception as error:
        failure = failure_of(error, name)
        _tag_class(context, failure)
        _report_check(context, record.day, failure)
        raise as_failure(failure, options) from error


def _report_check(context: dg.AssetExecutionContext, day: CollectionDay, error: CdiError) -> None:
    """Turn the check red that the failure is about: it runs on published days only, and would show the day before."""
    name = CHECK_OF_CLASS.get(error.failure_class)
    if name:
        result = unpublished_result(day, f"{error.failure_class}: {error.cause}")
        context.log_event(evaluation_of(day, name, result, run_id=context.run.run_id))


def as_failure(error: CdiError, options: IngestOptions) -> dg.Failure:
    """Return the failure as the run page shows it. Dagster must not retry: our classes decide what is retried."""
    guidance = FAILURE_GUIDE[error.failure_class]
    metadata: dict[str, Any] = {
        "failure_class": str(error.failure_class),
        "cause": error.cause,
        "next_step": error.next_step,
        "what_happens_by_itself": guidance.by_itself,
        "owner": guidance.owner,
        "rerun_helps": guidance.rerun_helps,
        "runbook": _link(options.runbook_link(error.failure_class)),
        "what_to_do": dg.MetadataValue.md(runbook_section(error.failure_class)),
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


def _link(place: str) -> dg.MetadataValue:
    # Browsers do not open a local file from a web page; by default the runbook is a file of the checkout.
    return dg.MetadataValue.url(place) if place.startswith(("http://", "https://")) else dg.MetadataValue.path(place)


def _tag_class(context: dg.AssetExecutionContext, error: CdiError) -> None:
    try:
        context.instance.add_run_tags(context.run.run_id, {names.FAILURE_CLASS_TAG: str(error.failure_class)})
    except Exception as tag_error:  # noqa: BLE001
        # As with the row: raising here would hide why the step failed. The failed runs sensor sets the tag too.
        context.log.exception(f"The run could not be tagged with its class: {type(tag_error).__name__}")
