"""Why a run failed, read from its tags, its events and its status row.

A step that failed reports class, cause and next step itself (`assets.steps`). A worker that was killed reports nothing,
and its row stays IN_PROGRESS: here is found out what happened to such a run.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.interfaces import StatusTable
from cdi_dagster.own_tags import own_tag
from cdi_dagster.run_records import interruption

_INTERRUPTED = "DagsterExecutionInterruptedError"


def read_failure(instance: dg.DagsterInstance, run: dg.DagsterRun, row_failure: str | None) -> CdiError:
    """Return why a failed run failed; of an unexpected error only its type, as its text may hold payload.

    Args:
        instance: whose run.
        run: that failed.
        row_failure: the failure in its status row: class and cause.
    """
    named = own_tag(run, names.FAILURE_CLASS_TAG) or ""
    for event in _events(instance, run, dg.DagsterEventType.STEP_FAILURE):
        data = event.step_failure_data
        if data.user_failure_data and "failure_class" in data.user_failure_data.metadata:
            return _as_reported(data.user_failure_data.metadata)
        if named in FailureClass.__members__ and named != FailureClass.JOB_FAILED:
            cause = (row_failure or f"see the error of {event.step_key}").removeprefix(f"{named}: ")
            return CdiError(FailureClass(named), cause)
        kind = _kind(data.error)
        if kind != _INTERRUPTED:
            return CdiError(FailureClass.JOB_FAILED, f"{event.step_key} failed with {kind}; its page shows where.")
    for event in _events(instance, run, dg.DagsterEventType.RUN_FAILURE):
        kind = _kind(getattr(event.event_specific_data, "error", None))
        if kind == _INTERRUPTED:
            return interruption()
        if kind is not None:
            return CdiError(FailureClass.JOB_FAILED, f"The run failed with {kind}; its page shows where.")
        return CdiError(FailureClass.WORKER_LOST, f"Dagster reports: {event.message}")
    return CdiError(FailureClass.WORKER_LOST, "The run ended without an error.")


def close_row(status_table: StatusTable, correlation_id: str, data_product: str, failure: str) -> None:
    """Write FAILED to the row of a run that ended without doing so: downstream products read it."""
    row = status_table.get(correlation_id, data_product)
    if row and row.status == "IN_PROGRESS":
        status_table.put(replace(row, status="FAILED", failure=failure))


def _events(instance: dg.DagsterInstance, run: dg.DagsterRun, kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    entries = instance.all_logs(run.run_id, of_type=kind)
    return [entry.dagster_event for entry in entries if entry.dagster_event]


def _kind(error: Any) -> str | None:
    """Return the type of the root error; Dagster wraps the errors of steps."""
    while error is not None and error.cause is not None:
        error = error.cause
    return error.cls_name if error is not None else None


def _as_reported(metadata: Mapping[str, dg.MetadataValue]) -> CdiError:
    reported = {name: str(value.value) for name, value in metadata.items()}
    detail = {"last_log_lines": reported["last_log_lines"]} if "last_log_lines" in reported else {}
    failure_class, cause = reported["failure_class"], reported["cause"]
    return CdiError.from_json(
        {"failure_class": failure_class, "cause": cause, "next_step": reported["next_step"], "detail": detail}
    )
