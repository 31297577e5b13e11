"""What every asset does around its work: the status row, and a failure that a person can act on.

`recorded_step` is the only place where a `CdiError` becomes a Dagster failure.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg

from cdi_dagster import names
from cdi_dagster.assets.attempts import attempts_metadata
from cdi_dagster.assets.reject_report import reject_metadata
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.failures import FAILURE_GUIDE, CdiError, FailureClass
from cdi_dagster.interfaces import StatusRow, StatusTable
from cdi_dagster.partitions import storage_day_in
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.run_records import assets_of_run, require_only_run
from cdi_dagster.storage import StorageError, storage_failure


@dataclass(kw_only=True)
class Step:
    """One asset's work on one storage day, as the status row tells it.

    Attributes:
        name: written as `CurrentStep`.
        collection: what it works on.
        storage_day: the partition.
        correlation_id: of the run: the run id, so that every log line, row and key request leads to the run page.
        is_last: whether the run is complete when this step is.
        cluster_id: where Spark ran, once known.
        s3_prefix: URI of the published daily records, once published.
        detail: counts and whatever else helps a reader of the row.
    """

    name: str
    collection: Collection
    storage_day: date
    correlation_id: str
    is_last: bool
    cluster_id: str | None = None
    s3_prefix: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def data_product(self) -> str:
        """How the status table calls the collection."""
        return f"CDI-{self.collection.id}"

    def carry_on(self, earlier: StatusRow | None) -> None:
        """Keep what an earlier step of this run wrote: a row is replaced whole."""
        if earlier:
            self.s3_prefix = earlier.s3_prefix
            self.detail = dict(earlier.detail)

    def row(self, status: str, failure: str | None = None) -> StatusRow:
        """Return the status row of this moment."""
        return StatusRow(
            correlation_id=self.correlation_id,
            data_product=self.data_product,
            run_id=self.correlation_id,
            status=status,
            export_day=export_day_of(self.storage_day),
            current_step=self.name,
            cluster_id=self.cluster_id,
            s3_prefix=self.s3_prefix,
            failure=failure,
            detail=dict(self.detail),
        )


@contextmanager
def recorded_step(
    context: dg.AssetExecutionContext,
    collection: Collection,
    name: str,
    *,
    status_table: StatusTable,
    options: IngestOptions,
    followed_by: tuple[dg.AssetKey, ...] = (),
) -> Iterator[Step]:
    """Write IN_PROGRESS, then COMPLETED or FAILED, around an asset's work, and make its failure readable.

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
    step = Step(
        name=name,
        collection=collection,
        storage_day=storage_day_in(context),
        correlation_id=context.run.run_id,
        is_last=not assets_of_run(context).intersection(followed_by),
    )
    try:
        require_only_run(context, collection)
        step.carry_on(status_table.get(step.correlation_id, step.data_product))
        status_table.put(step.row("IN_PROGRESS"))
        yield step
        status_table.put(step.row("COMPLETED" if step.is_last else "IN_PROGRESS"))
    except CdiError as error:
        _record_failure(context, status_table, step, error)
        raise as_failure(error, options) from error
    except StorageError as error:
        classed = storage_failure(error)
        _record_failure(context, status_table, step, classed)
        raise as_failure(classed, options) from error
    except dg.DagsterExecutionInterruptedError:
        if _is_terminated(context):
            _put_failed(context, status_table, step, "The run was terminated.")
        else:
            _record_failure(context, status_table, step, interruption())
        raise
    except Exception as error:
        # Its text may hold anything: row and alert get the type only.
        unforeseen = CdiError(
            FailureClass.JOB_FAILED,
            f"The step {name} failed with {type(error).__name__}; its error on the run page says where.",
            next_step="Read the step's error on the run page and report a defect.",
        )
        _record_failure(context, status_table, step, unforeseen)
        raise as_failure(unforeseen, options) from error


def interruption() -> CdiError:
    """Return the failure of a run whose process was ended together with Dagster: nobody meant the run."""
    return CdiError(FailureClass.INTERRUPTED, "Dagster was stopped while the run was at work.")


def _is_terminated(context: dg.AssetExecutionContext) -> bool:
    """Whether somebody terminated this run. Its process gets the same signal where Dagster is stopped."""
    run = context.instance.get_run_by_id(context.run.run_id)
    return run is not None and run.status in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


def as_failure(error: CdiError, options: IngestOptions) -> dg.Failure:
    """Return the failure as the run page shows it. Dagster must not retry: our classes decide what is tried again."""
    guidance = FAILURE_GUIDE[error.failure_class]
    metadata: dict[str, Any] = {
        "failure_class": str(error.failure_class),
        "cause": error.cause,
        "next_step": error.next_step,
        "what_happens_by_itself": guidance.by_itself,
        "owner": guidance.owner,
        "rerun_helps": guidance.rerun_helps,
        "runbook": _link(options.runbook_link(error.failure_class)),
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
    # No browser opens a file from a page of the web; by default the runbook is a file of the checkout.
    return dg.MetadataValue.url(place) if place.startswith(("http://", "https://")) else dg.MetadataValue.path(place)


def _record_failure(context: dg.AssetExecutionContext, status_table: StatusTable, step: Step, error: CdiError) -> None:
    try:
        context.instance.add_run_tags(context.run.run_id, {names.FAILURE_CLASS_TAG: str(error.failure_class)})
    except Exception as tag_error:  # noqa: BLE001
        # As with the row: raising here would hide why the step failed. The failed runs sensor sets the tag too.
        context.log.exception(f"The run could not be tagged with its class: {type(tag_error).__name__}")
    # The row of a duplicate would tell downstream readers that the day failed while the other run is at it.
    if error.failure_class is not FailureClass.DUPLICATE_RUN:
        step.cluster_id = error.detail.get("cluster_id", step.cluster_id)
        if "attempts" in error.detail:
            step.detail["attempts"] = error.detail["attempts"]
        _put_failed(context, status_table, step, f"{error.failure_class}: {error.cause}")


def _put_failed(context: dg.AssetExecutionContext, status_table: StatusTable, step: Step, failure: str) -> None:
    try:
        status_table.put(step.row("FAILED", failure))
    except Exception as error:  # noqa: BLE001
        # Raising here would hide why the step failed; the step fails anyway.
        context.log.exception(f"The status row could not be written: {type(error).__name__}")
