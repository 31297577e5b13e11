"""The status row of a day's work: IN_PROGRESS, then COMPLETED or FAILED, whatever runs it. No dagster.

COMPLETED means that the day is published, records and tables: the row of a run of records alone waits for its tables.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.full_disk import is_full, storage_full
from cdi_dagster.core.gate import CoalescerStatus
from cdi_dagster.core.ingest_report import IngestReport
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.core.status_rows import StatusRow, StatusTable, data_product_of
from cdi_dagster.core.storage_keys import daily_prefix
from cdi_dagster.core.tables_report import TablesReport
from cdi_dagster.published.read import read_mark
from cdi_dagster.published.tables import is_whole
from cdi_dagster.storage.failure import storage_failure
from cdi_dagster.storage.interface import Storage, StorageError

TERMINATED = "The run was terminated."


@dataclass(kw_only=True)
class StepRecord:
    """What the status row holds for one step of a day, filled while the step runs.

    Attributes:
        day: of which collection and storage day.
        correlation_id: of the run; in Dagster the run id, so that every log line and key request leads to its page.
        table: where the row goes.
        step: written as `CurrentStep`.
        ends_run: whether the run is complete when this step is.
        dagster_run_id: of the run, where Dagster runs it.
        cluster_id: where Spark ran, once known.
        daily_records_uri: of the published daily records, once published.
        snapshot_prefix: of the snapshot that the step makes, as the old system wrote it; None for a day's steps.
        detail: counts and other facts for a reader of the row.
    """

    day: CollectionDay
    correlation_id: str
    table: StatusTable
    step: str
    ends_run: bool = True
    dagster_run_id: str | None = None
    cluster_id: str | None = None
    daily_records_uri: str | None = None
    snapshot_prefix: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    def put(self, status: str, failure: str | None = None) -> None:
        """Write the row as it is now."""
        self.table.put(
            StatusRow(
                correlation_id=self.correlation_id,
                data_product=data_product_of(self.day.collection),
                status=status,
                export_day=self.day.export_day,
                current_step=self.step,
                dagster_run_id=self.dagster_run_id,
                cluster_id=self.cluster_id,
                daily_records_uri=self.daily_records_uri,
                snapshot_prefix=self.snapshot_prefix,
                failure=failure,
                detail=dict(self.detail),
            )
        )

    def begin(self, step: str) -> None:
        """Begin the next step of the run."""
        self.step = step
        self.put("IN_PROGRESS")

    def keep_earlier(self) -> None:
        """Keep what an earlier step of this run wrote: writing a row replaces all of it."""
        earlier = self.table.get(self.correlation_id, data_product_of(self.day.collection))
        if earlier:
            self.daily_records_uri = earlier.daily_records_uri
            self.detail = dict(earlier.detail)

    def add_gate(self, status: CoalescerStatus, *, overridden: bool) -> None:
        """Add whether the gate was overridden, and its state then."""
        self.detail |= gate_detail(status, overridden=overridden)

    def add_pinned(self, pinned: PinnedInput, *, allow_fewer_offsets: bool) -> None:
        """Add what a run reads."""
        self.detail |= {"objects": len(pinned.objects), "fingerprint": pinned.fingerprint}
        if allow_fewer_offsets:
            self.detail["allow_fewer_offsets"] = True

    def add_ingested(self, report: IngestReport, published: Storage) -> None:
        """Add what an ingestion published."""
        self.daily_records_uri = published.uri(daily_prefix(self.day))
        self.detail |= dict(report.totals) | {"fingerprint": report.fingerprint}
        self.await_tables(published)

    def await_tables(self, published: Storage) -> None:
        """Leave the row IN_PROGRESS where tables do not show the records: whoever publishes these completes it."""
        self.ends_run = self.ends_run and is_whole(published, self.day)

    def add_tables(self, report: TablesReport, published: Storage) -> None:
        """Add the tables that were published, with their rows; complete the row of the run of their records."""
        self.daily_records_uri = published.uri(daily_prefix(self.day))
        self.detail |= {table.name: table.rows for table in report.tables}
        self.ends_run = True
        mark = read_mark(published, self.day)
        row = self.table.get(mark.correlation_id, data_product_of(self.day.collection)) if mark else None
        waits = row is not None and row.status == "IN_PROGRESS" and row.correlation_id != self.correlation_id
        if row and waits and is_whole(published, self.day):
            self.table.put(replace(row, status="COMPLETED"))


def gate_detail(status: CoalescerStatus, *, overridden: bool) -> dict[str, bool | str]:
    """Return whether the gate was overridden, and its state then."""
    detail: dict[str, bool | str] = {"gate_overridden": overridden}
    if overridden and not status.is_open:
        detail["gate_was"] = f"{status.state}: {status.reason}"
    return detail


@contextmanager
def recorded(
    record: StepRecord, *, log: Callable[[str], object], interruption: Callable[[], CdiError | None] = lambda: None
) -> Iterator[StepRecord]:
    """Write IN_PROGRESS, then COMPLETED or FAILED, around a step; exceptions are raised again.

    The row of a DUPLICATE_RUN stays as it is: FAILED would state that the day failed while the other run works on it.

    Args:
        record: of the step.
        log: logs that the row of a failed step could not be written.
        interruption: returns the failure that an interruption means; None where a person terminated the run.
    """
    try:
        record.keep_earlier()
        record.put("IN_PROGRESS")
        yield record
        record.put("COMPLETED" if record.ends_run else "IN_PROGRESS")
    except Exception as error:
        failure = failure_of(error, record.step)
        if failure.failure_class is not FailureClass.DUPLICATE_RUN:
            record.cluster_id = failure.detail.get("cluster_id", record.cluster_id)
            if "attempts" in failure.detail:
                record.detail["attempts"] = failure.detail["attempts"]
            _put_failed(record, f"{failure.failure_class}: {failure.cause}", log)
        raise
    except BaseException:  # Ctrl-C, SIGTERM, Dagster's interruption
        failed = interruption()
        _put_failed(record, f"{failed.failure_class}: {failed.cause}" if failed else TERMINATED, log)
        raise


def failure_of(error: Exception, step: str) -> CdiError:
    """Return the failure that an exception means; of an unexpected one only its type, as its text may hold payload."""
    if isinstance(error, CdiError):
        return error
    if isinstance(error, StorageError):
        return storage_failure(error)
    if is_full(error):
        return storage_full(f"The step {step} found a disk full; its error shows where.")
    return CdiError(
        FailureClass.JOB_FAILED,
        f"The step {step} failed with {type(error).__name__}; its error shows where.",
        next_step="Read the step's error and report a defect.",
    )


def _put_failed(record: StepRecord, failure: str, log: Callable[[str], object]) -> None:
    try:
        record.put("FAILED", failure)
    except Exception as error:  # noqa: BLE001 - raising here would hide why the step failed; it fails anyway
        log(f"The status row could not be written: {getattr(error, 'cause', type(error).__name__)}")
