"""The report of failed runs: each class is tagged, each status row closed, an alert sent for each cause that needs one.

Which messages there are is `core.failure_messages`. What was sent is kept in tags of the runs, set after it was sent:
where the process ends in between, it is sent once more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.alert import Alert
from cdi_dagster.core.alert_decision import AlertAction, AlertDecision, decide_alert, decide_snapshot_alert
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import parse_day, storage_day_of
from cdi_dagster.core.failure_messages import FailedDay, FailureMessage, group_failures
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.launch_decision import LaunchAction, decide
from cdi_dagster.core.snapshot_decision import decide_snapshot
from cdi_dagster.core.status_rows import data_product_of
from cdi_dagster.day_facts import read_day_facts, read_snapshot_facts
from cdi_dagster.ingestion.status_rows import TERMINATED
from cdi_dagster.interfaces import AlertSink, CoalescerStatusSource, StatusRow, StatusTable
from cdi_dagster.own_tags import add_own_tags, own_tag
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.run_records import is_by_person, is_sensor_on, makes_snapshot
from cdi_dagster.sensors.alerted_causes import AlertedCause, earlier_message
from cdi_dagster.sensors.failure_alert import failure_alert, recovery_alert
from cdi_dagster.sensors.run_failure import close_row, read_failure
from cdi_dagster.storage.roots import Roots


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """A failed run of which a person has to know."""

    run: dg.DagsterRun
    collection: Collection
    day: FailedDay


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
        automation: which days are launched by themselves.
        log: logs what could not be done; the next tick retries.
        out_of_reach: whether no alert can be sent in this tick.
    """

    instance: dg.DagsterInstance
    coalescer_status: CoalescerStatusSource
    roots: Roots
    status_table: StatusTable
    alerts: AlertSink
    options: IngestOptions
    automation: Automation
    log: Callable[[str], object]
    out_of_reach: bool = False

    def look_up(self, run: dg.DagsterRun, collections: Sequence[Collection], now: datetime) -> FailedRun | str:
        """Deal with a run that failed or was terminated; return it where it is to be alerted, else a line about it."""
        if run.status is dg.DagsterRunStatus.CANCELED:
            self._close_rows(run, collections, TERMINATED)
            return self._done(run, "it was terminated")
        rows = self._rows(run, collections)
        failure = read_failure(self.instance, run, next((row.failure for row in rows.values() if row.failure), None))
        if own_tag(run, names.FAILURE_CLASS_TAG) is None:
            self._tag([run], {names.FAILURE_CLASS_TAG: str(failure.failure_class)})
        self._close_rows(run, collections, f"{failure.failure_class}: {failure.cause}")
        if own_tag(run, names.ALERT_TAG) is not None:
            return f"Run {run.run_id}: its status row is still to be closed."
        if run.tags.get(names.WILL_RETRY_TAG) == "true":
            return self._done(run, "Dagster retries it")
        # A run of several collections: the one that is not done.
        failed = next(
            (each for each in collections if each in rows and rows[each].status != "COMPLETED"), collections[0]
        )
        return self._decided(run, failed, failure, now)

    def _decided(self, run: dg.DagsterRun, collection: Collection, failure: CdiError, now: datetime) -> FailedRun | str:
        is_snapshot = makes_snapshot(run, collection)
        decide_run = self._decide_snapshot if is_snapshot else self._decide_day
        decision = decide_run(run, collection, failure.failure_class, now)
        if decision.action is AlertAction.STAY_QUIET:
            return self._done(run, f"{failure.failure_class}; no alert is sent: {decision.what_happens}")
        if decision.action is AlertAction.RETRY_LATER:
            return _later(run, failure)
        day = FailedDay(
            run_id=run.run_id,
            collection_id=collection.id,
            storage_day=_storage_day(run, is_snapshot=is_snapshot),
            failure=failure,
            what_happens=decision.what_happens,
            will_retry=decision.will_retry,
            requested_by=_requested_by(run),
            is_snapshot=is_snapshot,
        )
        return FailedRun(run=run, collection=collection, day=day)

    def _decide_day(
        self, run: dg.DagsterRun, collection: Collection, failure_class: FailureClass, now: datetime
    ) -> AlertDecision:
        (facts,) = read_day_facts(
            self.instance,
            collection,
            [parse_day(run.tags[names.PARTITION_TAG])],
            coalescer_status=self.coalescer_status,
            roots=self.roots,
        )
        automation = self._as_switched(names.completion_sensor_name(collection))
        return decide_alert(run.run_id, failure_class, facts, now, automation)

    def _decide_snapshot(
        self, run: dg.DagsterRun, collection: Collection, failure_class: FailureClass, now: datetime
    ) -> AlertDecision:
        export_day = parse_day(run.tags[names.PARTITION_TAG])
        (facts,) = read_snapshot_facts(
            self.instance,
            collection,
            [export_day],
            published=self.roots.published,
            calendar=self.automation.calendar,
            now=now,
        )
        automation = self._as_switched(names.snapshot_sensor_name(collection))
        return decide_snapshot_alert(run.run_id, failure_class, facts, now, automation)

    def _as_switched(self, sensor: str) -> Automation:
        # This sensor runs; the one that launches does too, unless a person switched it off.
        return replace(self.automation, is_on=is_sensor_on(self.instance, sensor, default=True))

    def report(self, failed: Sequence[FailedRun], now: datetime) -> list[str]:
        """Send an alert for each cause that is not known; return a line about each run."""
        runs = {each.run.run_id: each.run for each in failed}
        causes = {each.day.cause: each.collection for each in failed if each.day.can_be_known}
        found = ((cause, earlier_message(self.instance, collection, cause)) for cause, collection in causes.items())
        earlier = {cause: message for cause, message in found if message}
        messages = group_failures([each.day for each in failed], earlier, now)
        return [line for message in messages for line in self._report(message, runs, now)]

    def _report(self, message: FailureMessage, runs: Mapping[str, dg.DagsterRun], now: datetime) -> list[str]:
        known = message.known_by
        if not known and not self._sent(failure_alert(message.failed, self.options, cause=message.cause)):
            return [_later(runs[each.run_id], each.failure) for each in message.failed]
        lines = []
        for each in message.failed:
            tags = {names.CAUSE_TAG: message.cause}
            sent = f"alert sent with that of run {known.run_id}" if known else "alert sent"
            if not known:
                tags[names.ALERTED_AT_TAG] = now.isoformat()
            what = f"{each.failure.failure_class}; {sent}. Automatically: {each.what_happens}"
            lines.append(self._done(runs[each.run_id], what, tags))
        return lines

    def follow_up(self, causes: Sequence[AlertedCause], now: datetime) -> list[str]:
        """Send a reminder of each cause whose last message is a day old, and one message of each that is over."""
        lines = []
        for cause in (self._without_recovered(each, now) for each in causes):
            if not cause.unsolved:
                days = cause.storage_days
                if self._sent(recovery_alert(cause.collection, days, cause.cause, self.options)):
                    self._tag(cause.runs, {names.OVER_TAG: "true"})
                    lines.append(f"Over: {cause.cause}, {len(days)} days.")
            elif due := cause.to_remind(self.automation.calendar.first_due_day(now), now):
                again = sorted((self._again(run, cause.collection) for run in due), key=lambda day: day.storage_day)
                if self._sent(failure_alert(again, self.options, cause=cause.cause, is_reminder=True)):
                    self._tag(due, {names.ALERTED_AT_TAG: now.isoformat()})
                    lines.append(f"Reminder sent: {cause.cause}, {len(due)} runs.")
        return lines

    def _without_recovered(self, cause: AlertedCause, now: datetime) -> AlertedCause:
        """Return the cause without what is done, although no run of what failed has succeeded.

        Offsets that are back as they were published: no run follows. Records that came from elsewhere, with tables of
        them made by Dagster.
        """
        is_of_offsets = f"|{FailureClass.OFFSETS_LOST}|" in cause.cause
        unclear = cause.unsolved if is_of_offsets else cause.unclear
        of_day = {parse_day(run.tags[names.PARTITION_TAG]): run for run in unclear}
        if not of_day:
            return cause
        done = {of_day[day].run_id for day in self._decided_done(cause, list(of_day), now)}
        return replace(cause, unsolved=tuple(run for run in cause.unsolved if run.run_id not in done))

    def _decided_done(self, cause: AlertedCause, days: Sequence[date], now: datetime) -> Iterator[date]:
        """Yield the days, or export days of snapshots, of which nothing is left to do."""
        if cause.is_snapshot:
            for facts in read_snapshot_facts(
                self.instance,
                cause.collection,
                days,
                published=self.roots.published,
                calendar=self.automation.calendar,
                now=now,
            ):
                if decide_snapshot(facts, now).action is LaunchAction.DONE:
                    yield facts.export_day
            return
        for of_day in read_day_facts(
            self.instance, cause.collection, days, coalescer_status=self.coalescer_status, roots=self.roots
        ):
            if decide(of_day, now).action is LaunchAction.DONE:
                yield of_day.storage_day

    def _tag(self, runs: Sequence[dg.DagsterRun], tags: Mapping[str, str]) -> None:
        for run in runs:
            add_own_tags(self.instance, run.run_id, tags)

    def _again(self, run: dg.DagsterRun, collection: Collection) -> FailedDay:
        rows = self._rows(run, [collection])
        failure = read_failure(self.instance, run, next((row.failure for row in rows.values() if row.failure), None))
        is_snapshot = makes_snapshot(run, collection)
        return FailedDay(
            run_id=run.run_id,
            collection_id=collection.id,
            storage_day=_storage_day(run, is_snapshot=is_snapshot),
            failure=failure,
            what_happens="nothing",
            is_snapshot=is_snapshot,
        )

    def _done(self, run: dg.DagsterRun, what: str, tags: Mapping[str, str] | None = None) -> str:
        self._tag([run], {names.ALERT_TAG: what[:200], **(tags or {})})
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
            self._tag([run], {names.ROW_CLOSED_TAG: "true"})

    def _sent(self, alert: Alert) -> bool:
        if self.out_of_reach:
            return False
        try:
            self.alerts.send(alert)
        except Exception as error:  # noqa: BLE001 - the next tick retries, whatever failed
            self.log(f"{alert.title}: the alert could not be sent, the next tick retries: {error}")
            self.out_of_reach = True
        return not self.out_of_reach


def _storage_day(run: dg.DagsterRun, *, is_snapshot: bool) -> date:
    partition = parse_day(run.tags[names.PARTITION_TAG])
    return storage_day_of(partition) if is_snapshot else partition


def _requested_by(run: dg.DagsterRun) -> str | None:
    if run.parent_run_id and is_by_person(run):
        return None  # a re-execution has the tags of its parent
    if backfill := run.tags.get(names.BACKFILL_TAG):
        return f"backfill {backfill}"
    return None if is_by_person(run) else "automation"


def _later(run: dg.DagsterRun, failure: CdiError) -> str:
    return f"Run {run.run_id}: {failure.failure_class}, checked again at the next tick."
