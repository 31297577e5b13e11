"""The report of one failed run: its class is tagged, its status row closed, an alert sent where one is needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.alert import Alert
from cdi_dagster.core.alert_decision import AlertAction, AlertDecision, decide_alert
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of, parse_day
from cdi_dagster.core.failures import FAILURE_GUIDE, CdiError
from cdi_dagster.core.launch_decision import RUN_AGAIN_AT_ONCE
from cdi_dagster.core.status_rows import data_product_of
from cdi_dagster.day_facts import read_day_facts
from cdi_dagster.ingestion.status_rows import TERMINATED
from cdi_dagster.interfaces import AlertSink, CoalescerStatusSource, StatusRow, StatusTable
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.sensors.run_failure import close_row, read_failure
from cdi_dagster.storage.roots import Roots


@dataclass(kw_only=True)
class FailureReporter:
    """Reports failed runs, in one tick.

    Attributes:
        instance: whose runs.
        coalescer_status: the gate, for what automation does next.
        roots: for the same.
        status_table: whose rows are closed.
        alerts: where alerts go.
        options: for the links.
        automated_from: the oldest storage day that automation looks at.
        log: logs what could not be done; the next tick retries.
        out_of_reach: whether no alert can be sent in this tick.
    """

    instance: dg.DagsterInstance
    coalescer_status: CoalescerStatusSource
    roots: Roots
    status_table: StatusTable
    alerts: AlertSink
    options: IngestOptions
    automated_from: date
    log: Callable[[str], object]
    out_of_reach: bool = False

    def report(self, run: dg.DagsterRun, collections: Sequence[Collection], now: datetime) -> str:
        """Deal with a run that failed or was terminated, and return a line about it."""
        if run.status is dg.DagsterRunStatus.CANCELED:
            self._close_rows(run, collections, TERMINATED)
            return self._done(run, "it was terminated")
        rows = self._rows(run, collections)
        failure = read_failure(self.instance, run, next((row.failure for row in rows.values() if row.failure), None))
        if names.FAILURE_CLASS_TAG not in run.tags:
            self.instance.add_run_tags(run.run_id, {names.FAILURE_CLASS_TAG: str(failure.failure_class)})
        self._close_rows(run, collections, f"{failure.failure_class}: {failure.cause}")
        if names.ALERT_TAG in run.tags:
            return f"Run {run.run_id}: its status row is still to be closed."
        if run.tags.get(names.WILL_RETRY_TAG) == "true":
            return self._done(run, "Dagster retries it")
        # A run of several collections: the one that is not done.
        failed = next(
            (each for each in collections if each in rows and rows[each].status != "COMPLETED"), collections[0]
        )
        return self._alert_or_not(run, failed, failure, now)

    def _alert_or_not(self, run: dg.DagsterRun, collection: Collection, failure: CdiError, now: datetime) -> str:
        storage_day = parse_day(run.tags[names.PARTITION_TAG])
        (facts,) = read_day_facts(
            self.instance,
            collection,
            [storage_day],
            coalescer_status=self.coalescer_status,
            roots=self.roots,
        )
        automated = storage_day >= self.automated_from or failure.failure_class in RUN_AGAIN_AT_ONCE
        decision = decide_alert(run.run_id, failure.failure_class, facts, now, automated=automated)
        if decision.action is AlertAction.STAY_QUIET:
            return self._done(run, f"{failure.failure_class}; no alert is sent: {decision.what_happens}")
        if decision.action is AlertAction.RETRY_LATER or not self._sent(
            self._alert(run, collection, failure, decision)
        ):
            return f"Run {run.run_id}: {failure.failure_class}, checked again at the next tick."
        return self._done(run, f"{failure.failure_class}; alert sent. Automatically: {decision.what_happens}")

    def _done(self, run: dg.DagsterRun, what: str) -> str:
        self.instance.add_run_tags(run.run_id, {names.ALERT_TAG: what[:200]})
        return f"Run {run.run_id}: {what}"

    def _rows(self, run: dg.DagsterRun, collections: Sequence[Collection]) -> dict[Collection, StatusRow]:
        """Return the run's status rows, as far as there are any."""
        try:
            rows = [(each, self.status_table.get(run.run_id, data_product_of(each))) for each in collections]
        except CdiError as error:
            self.log(f"Run {run.run_id}: {error.cause}")
            return {}
        return {collection: row for collection, row in rows if row}

    def _close_rows(self, run: dg.DagsterRun, collections: Sequence[Collection], failure: str) -> None:
        try:
            for collection in collections:
                close_row(self.status_table, run.run_id, data_product_of(collection), failure)
        except CdiError as error:
            self.log(f"The status row of run {run.run_id} could not be closed, the next tick retries: {error.cause}")
        else:
            self.instance.add_run_tags(run.run_id, {names.ROW_CLOSED_TAG: "true"})

    def _sent(self, alert: Alert) -> bool:
        if self.out_of_reach:
            return False
        try:
            self.alerts.send(alert)
        except Exception as error:  # noqa: BLE001 - the next tick retries, whatever failed
            self.log(f"{alert.title}: the alert could not be sent, the next tick retries: {error}")
            self.out_of_reach = True
        return not self.out_of_reach

    def _alert(self, run: dg.DagsterRun, collection: Collection, failure: CdiError, decision: AlertDecision) -> Alert:
        storage_day = parse_day(run.tags[names.PARTITION_TAG])
        day = f"storage day {storage_day} (export day {export_day_of(storage_day)})"
        return Alert(
            kind="FAILED",
            title=f"{failure.failure_class}: {collection.id} of {day} failed",
            text=f"{failure.cause.rstrip('.')}. Automatically: {decision.what_happens.rstrip('.')}.",
            collection_id=collection.id,
            storage_days=(storage_day,),
            runbook=self.options.runbook_link(failure.failure_class),
            failure_class=str(failure.failure_class),
            owner=FAILURE_GUIDE[failure.failure_class].owner,
            next_step=failure.next_step,
            run_url=f"{self.options.dagster_url}/runs/{run.run_id}",
            last_log_lines=failure.detail.get("last_log_lines"),
        )
