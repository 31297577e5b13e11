"""Which causes of failures were alerted and go on, by the tags of the runs that an alert named."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection, find_collection
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.failure_messages import REMIND_AFTER, EarlierMessage, is_left
from cdi_dagster.core.launch_decision import RunState
from cdi_dagster.run_records import past_runs

REMINDS_FOR = timedelta(days=7)
"""A day that nobody wants any more is not reminded of for ever."""
_MOST_OF_A_CAUSE = 500


def earlier_message(instance: dg.DagsterInstance, cause: str) -> EarlierMessage | None:
    """Return the last message of a cause that goes on: a day that it named has not succeeded since."""
    filters = dg.RunsFilter(tags={names.CAUSE_TAG: cause})
    records = instance.get_run_records(filters, limit=_MOST_OF_A_CAUSE)
    runs = [record.dagster_run for record in records if names.ALERTED_AT_TAG in record.dagster_run.tags]
    if not runs:
        return None
    last = max(runs, key=lambda run: run.tags[names.ALERTED_AT_TAG])
    sent_at = datetime.fromisoformat(last.tags[names.ALERTED_AT_TAG])
    collection = find_collection(cause.partition("|")[0])
    if all(_has_succeeded_since(instance, run, collection) for run in runs):
        return None
    return EarlierMessage(run_id=last.run_id, sent_at=sent_at)


def causes_to_remind(
    instance: dg.DagsterInstance,
    alerted: Sequence[tuple[dg.DagsterRun, Collection]],
    automated_from: date,
    now: datetime,
) -> Mapping[str, list[tuple[dg.DagsterRun, Collection]]]:
    """Return the causes whose last message is a day old, with the last run of each day that has not succeeded since.

    Args:
        instance: whose runs.
        alerted: runs of which an alert was sent, oldest first.
        automated_from: the oldest storage day that automation looks at; what is late is reminded of elsewhere.
        now: aware, UTC.
    """
    causes: dict[str, dict[str, tuple[dg.DagsterRun, Collection]]] = {}
    sent_at: dict[str, datetime] = {}
    for run, collection in alerted:
        cause = run.tags[names.CAUSE_TAG]
        causes.setdefault(cause, {})[run.tags[names.PARTITION_TAG]] = (run, collection)
        if names.ALERTED_AT_TAG in run.tags:
            at = datetime.fromisoformat(run.tags[names.ALERTED_AT_TAG])
            sent_at[cause] = max(at, sent_at.get(cause, at))
    due = [cause for cause, at in sent_at.items() if is_left(cause) and now - at >= REMIND_AFTER]
    found = {
        cause: [
            (run, collection)
            for run, collection in causes[cause].values()
            if parse_day(run.tags[names.PARTITION_TAG]) < automated_from
            and _ended_after(instance, run, now - REMINDS_FOR)
            and not _has_succeeded_since(instance, run, collection)
        ]
        for cause in due
    }
    return {cause: runs for cause, runs in found.items() if runs}


def _ended_after(instance: dg.DagsterInstance, run: dg.DagsterRun, moment: datetime) -> bool:
    record = instance.get_run_record_by_id(run.run_id)
    return record is None or record.end_time is None or record.end_time >= moment.timestamp()


def _has_succeeded_since(instance: dg.DagsterInstance, run: dg.DagsterRun, collection: Collection) -> bool:
    storage_day = parse_day(run.tags[names.PARTITION_TAG])
    runs = past_runs(instance, collection, [storage_day])[storage_day]
    position = next((number for number, each in enumerate(runs) if each.run_id == run.run_id), -1)
    return any(each.state is RunState.SUCCEEDED for each in runs[position + 1 :])
