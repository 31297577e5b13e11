"""Reading what a decision goes by: the gate, the publication's mark, and the run records of each day.

One look for schedule and sensor alike. "Could not read" becomes a fact of the day, and the day waits.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

import dagster as dg

from cdi_dagster import names
from cdi_dagster.assets.steps import LIVE_RUN_STATUSES, works_on
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.launch_decision import DayFacts, PastRun, PublishedFrom, RunState
from cdi_dagster.core.listing import listing_fingerprint
from cdi_dagster.interfaces import CoalescerStatusSource
from cdi_dagster.published.read import read_mark
from cdi_dagster.storage.interface import StorageError
from cdi_dagster.storage.roots import Roots

_MOST_CHANGED = 50

_STATES: Mapping[dg.DagsterRunStatus, RunState] = {
    **dict.fromkeys(LIVE_RUN_STATUSES, RunState.LIVE),
    dg.DagsterRunStatus.SUCCESS: RunState.SUCCEEDED,
    dg.DagsterRunStatus.FAILURE: RunState.FAILED,
    dg.DagsterRunStatus.CANCELED: RunState.CANCELED,
}


def read_day_facts(
    instance: dg.DagsterInstance,
    collection: Collection,
    storage_days: Sequence[date],
    *,
    coalescer_status: CoalescerStatusSource,
    roots: Roots,
) -> list[DayFacts]:
    """Return the facts of each day, in the order given. One query of run records; one mark and one status a day."""
    # Run records before marks: a run that ends in between is seen at work and its day waits; the other way round it
    # would be seen ended, and its day unpublished.
    runs = past_runs(instance, collection, storage_days)
    return [
        _facts(collection.on(storage_day), runs[storage_day], coalescer_status, roots) for storage_day in storage_days
    ]


def _facts(
    day: CollectionDay,
    runs: tuple[PastRun, ...],
    coalescer_status: CoalescerStatusSource,
    roots: Roots,
) -> DayFacts:
    published_from, unreadable = None, None
    try:
        mark = read_mark(roots.published, day)
        if mark:
            published_from = PublishedFrom(fingerprint=mark.fingerprint, published_at=mark.published_at)
    except (CdiError, StorageError) as error:
        unreadable = f"what is published could not be read: {error}"
    facts = DayFacts(
        storage_day=day.storage_day,
        coalescer=coalescer_status.status(day),
        published_from=published_from,
        runs=runs,
        unreadable=unreadable,
    )
    if published_from and facts.coalescer.is_open and not facts.coalescer.fingerprint and not facts.is_published_for:
        # AWS Batch tells that the coalescer ran, not what it left.
        try:
            listing = roots.corporate.list(day.corporate_prefix)
            return replace(facts, listing_fingerprint=listing_fingerprint(listing))
        except StorageError as error:
            return replace(facts, unreadable=f"the day could not be listed: {error}")
    return facts


def days_with_changed_input(instance: dg.DagsterInstance, collection: Collection, *, since: datetime) -> list[date]:
    """Return the days whose input changed under a run of late, however old they are: the sensor mends backfills too."""
    records = instance.get_run_records(
        dg.RunsFilter(tags={names.FAILURE_CLASS_TAG: FailureClass.INPUT_CHANGED.value}, updated_after=since),
        limit=_MOST_CHANGED,
    )
    runs = [record.dagster_run for record in records]
    return sorted({parse_day(run.tags[names.PARTITION_TAG]) for run in runs if works_on(run, collection)})


def past_runs(
    instance: dg.DagsterInstance, collection: Collection, storage_days: Sequence[date]
) -> Mapping[date, tuple[PastRun, ...]]:
    """Return the runs that publish a collection's daily records, of any origin, oldest first, by storage day."""
    days = {storage_day.isoformat(): storage_day for storage_day in storage_days}
    found: dict[date, list[PastRun]] = defaultdict(list)
    records = instance.get_run_records(
        dg.RunsFilter(tags={names.PARTITION_TAG: list(days)}, statuses=list(_STATES)), ascending=True
    )
    for record in records:
        run = record.dagster_run
        if works_on(run, collection):
            found[days[run.tags[names.PARTITION_TAG]]].append(_past_run(record))
    return {storage_day: tuple(found[storage_day]) for storage_day in storage_days}


def _past_run(record: dg.RunRecord) -> PastRun:
    run = record.dagster_run
    named = run.tags.get(names.FAILURE_CLASS_TAG)
    return PastRun(
        run_id=run.run_id,
        state=_STATES[run.status],
        launch=run.tags.get(names.LAUNCH_TAG),
        failure_class=FailureClass(named) if named and named in FailureClass.__members__ else None,
        ended_at=datetime.fromtimestamp(record.end_time, tz=UTC) if record.end_time else None,
        by_person=_is_by_person(run),
    )


def _is_by_person(run: dg.DagsterRun) -> bool:
    """A re-execution copies the tags of its parent; Dagster's own retry of a lost worker is one too."""
    if names.RETRY_TAG in run.tags:
        return False
    return names.LAUNCHED_BY_TAG not in run.tags or run.parent_run_id is not None
