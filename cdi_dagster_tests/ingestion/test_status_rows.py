"""The status row around a step of a day, whatever ends the step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.status_rows import StatusRow
from cdi_dagster.ingestion.status_rows import TERMINATED, StepRecord, failure_of, gate_detail, recorded
from cdi_dagster.storage.interface import TransientStorageError
from cdi_dagster_tests.collections import AUDIT

DAY = AUDIT.on(date(2023, 3, 26))


@dataclass
class Table:
    """Keeps every row; writes none from the moment it is broken."""

    rows: list[StatusRow] = field(default_factory=list)
    broken: bool = False

    def put(self, row: StatusRow) -> None:
        if self.broken:
            raise ConnectionError("payload in a message")
        self.rows.append(row)

    def get(self, correlation_id: str, data_product: str) -> StatusRow | None:
        found = [row for row in self.rows if (row.correlation_id, row.data_product) == (correlation_id, data_product)]
        return found[-1] if found else None

    @property
    def written(self) -> list[tuple[str, str, str | None]]:
        return [(row.current_step, row.status, row.failure) for row in self.rows]


@pytest.fixture
def table() -> Table:
    return Table()


def step_record(table: Table, step: str = "ingest", **values: Any) -> StepRecord:
    return StepRecord(day=DAY, correlation_id="run-1", table=table, step=step, **values)


@contextmanager
def failing(error: type[BaseException]) -> Iterator[None]:
    with pytest.raises(error):
        yield


def test_a_step_is_in_progress_then_completed(table: Table) -> None:
    with recorded(step_record(table), log=print) as row:
        row.begin("tables")
    assert table.written == [
        ("ingest", "IN_PROGRESS", None),
        ("tables", "IN_PROGRESS", None),
        ("tables", "COMPLETED", None),
    ]
    assert table.rows[-1].data_product == "CDI-data:businessAudit"
    assert table.rows[-1].export_day == date(2023, 3, 27)


def test_a_step_that_does_not_end_the_run_leaves_the_row_in_progress_for_the_next_which_keeps_its_detail(
    table: Table,
) -> None:
    with recorded(step_record(table, ends_run=False), log=print) as row:
        row.daily_records_uri = "s3://p/day"
        row.detail["read"] = 3
    assert table.rows[-1].status == "IN_PROGRESS"
    with recorded(step_record(table, "tables"), log=print):
        pass
    assert (table.rows[-1].daily_records_uri, table.rows[-1].detail) == ("s3://p/day", {"read": 3})


def test_a_failure_is_written_with_its_class_its_cluster_and_its_attempts(table: Table) -> None:
    attempts = [{"profile": "small"}]
    error = CdiError(FailureClass.CLUSTER_LOST, "It went.", detail={"cluster_id": "j-1", "attempts": attempts})
    with failing(CdiError), recorded(step_record(table), log=print):
        raise error
    assert table.written[-1] == ("ingest", "FAILED", "CLUSTER_LOST: It went.")
    assert (table.rows[-1].cluster_id, table.rows[-1].detail["attempts"]) == ("j-1", attempts)


def test_an_unexpected_error_is_written_without_its_text(table: Table) -> None:
    with failing(ValueError), recorded(step_record(table), log=print):
        raise ValueError("a record's payload")
    failure = table.written[-1][2]
    assert failure is not None
    assert failure.startswith("JOB_FAILED: The step ingest failed with ValueError")
    assert "payload" not in failure


def test_the_row_of_a_duplicate_run_is_not_failed(table: Table) -> None:
    with failing(CdiError), recorded(step_record(table), log=print):
        raise CdiError(FailureClass.DUPLICATE_RUN, "Another run has the day.")
    assert [status for _, status, _ in table.written] == ["IN_PROGRESS"]


@pytest.mark.parametrize(
    ("interruption", "expected"),
    [
        (None, TERMINATED),
        (CdiError(FailureClass.INTERRUPTED, "Dagster was stopped."), "INTERRUPTED: Dagster was stopped."),
    ],
)
def test_an_interruption_is_written_as_what_it_means(
    table: Table, interruption: CdiError | None, expected: str
) -> None:
    with failing(KeyboardInterrupt), recorded(step_record(table), log=print, interruption=lambda: interruption):
        raise KeyboardInterrupt
    assert table.written[-1] == ("ingest", "FAILED", expected)


def test_a_row_that_cannot_be_written_does_not_hide_why_the_step_failed(table: Table) -> None:
    logged: list[str] = []
    with failing(CdiError), recorded(step_record(table), log=logged.append):
        table.broken = True
        raise CdiError(FailureClass.JOB_FAILED, "It failed.")
    assert logged == ["The status row could not be written: ConnectionError"]


def test_a_failure_keeps_its_class_and_storage_errors_have_one() -> None:
    error = CdiError(FailureClass.JOB_FAILED, "It failed.")
    assert failure_of(error, "ingest") is error
    assert failure_of(TransientStorageError("no answer"), "ingest").failure_class is FailureClass.STORAGE_UNAVAILABLE


@pytest.mark.parametrize(
    ("state", "overridden", "expected"),
    [
        (CoalescerState.COMPLETE, False, {"gate_overridden": False}),
        (CoalescerState.COMPLETE, True, {"gate_overridden": True}),
        (CoalescerState.RUNNING, True, {"gate_overridden": True, "gate_was": "RUNNING: at work"}),
    ],
)
def test_an_override_is_written_with_what_it_overrode(
    state: CoalescerState, overridden: bool, expected: dict[str, object]
) -> None:
    assert gate_detail(CoalescerStatus(state=state, reason="at work"), overridden=overridden) == expected
