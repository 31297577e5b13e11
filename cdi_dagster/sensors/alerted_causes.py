"""Which causes of failures were alerted, and whether they go on, by the tags of the runs that an alert named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.alert import REMIND_AFTER
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import parse_day, storage_day_of
from cdi_dagster.core.failure_messages import EarlierMessage, collection_of, is_left
from cdi_dagster.core.launch_decision import PastRun, RunState
from cdi_dagster.own_tags import own_tag
from cdi_dagster.run_records import past_runs, past_snapshot_runs

REMINDS_FOR = timedelta(days=7)
"""A day that nobody wants any more is not reminded of for ever."""
_MOST_OF_A_CAUSE = 500


@dataclass(frozen=True, kw_only=True)
class AlertedCause:
    """A cause of which an alert was sent.

    Attributes:
        cause: what the runs have in common.
        collection: whose.
        runs: that failed for it, oldest first.
        unsolved: the last of them of each day, where no later run of what failed has succeeded.
        unclear: those of them since which tables alone were made: whether the day is done decides.
        sent_at: when the last message was sent.
        is_snapshot: whether the runs are of snapshots.
    """

    cause: str
    collection: Collection
    runs: tuple[dg.DagsterRun, ...]
    unsolved: tuple[dg.DagsterRun, ...]
    sent_at: datetime
    unclear: tuple[dg.DagsterRun, ...] = ()
    is_snapshot: bool = False

    @property
    def storage_days(self) -> list[date]:
        """The days that it is about, in order; of a snapshot the last that it takes in."""
        days = {parse_day(run.tags[names.PARTITION_TAG]) for run in self.runs}
        return sorted(map(storage_day_of, days) if self.is_snapshot else days)

    def to_remind(self, automated_from: date, now: datetime) -> tuple[dg.DagsterRun, ...]:
        """Return the runs of a reminder that is due: of days that automation does not look at, left to a person.

        What automation looks at is late, and is reminded of as that; but for a snapshot, whose lateness is sent once.
        """
        if not is_left(self.cause) or now - self.sent_at < REMIND_AFTER:
            return ()
        if self.is_snapshot:
            return self.unsolved
        return tuple(run for run in self.unsolved if parse_day(run.tags[names.PARTITION_TAG]) < automated_from)


def is_alerted(run: dg.DagsterRun) -> bool:
    """Whether an alert of a run's failure was sent, and not yet that its cause is over."""
    return own_tag(run, names.CAUSE_TAG) is not None and own_tag(run, names.OVER_TAG) is None


def alerted_causes(
    instance: dg.DagsterInstance, collections: Sequence[Collection], runs: Sequence[dg.DagsterRun]
) -> list[AlertedCause]:
    """Return the causes of runs.

    Args:
        instance: whose runs.
        collections: of this code location.
        runs: that were alerted, oldest first.
    """
    by_id = {collection.id: collection for collection in collections}
    found: dict[str, list[dg.DagsterRun]] = {}
    for run in runs:
        found.setdefault(run.tags[names.CAUSE_TAG], []).append(run)
    causes = []
    for cause, of_cause in found.items():
        collection_id, is_snapshot = collection_of(cause)
        collection = by_id.get(collection_id)
        sent = [at for run in of_cause if (at := own_tag(run, names.ALERTED_AT_TAG))]
        if collection and sent:
            unsolved, unclear = _unsolved(instance, collection, of_cause, is_snapshot=is_snapshot)
            causes.append(
                AlertedCause(
                    cause=cause,
                    collection=collection,
                    runs=tuple(of_cause),
                    unsolved=unsolved,
                    unclear=unclear,
                    sent_at=datetime.fromisoformat(max(sent)),
                    is_snapshot=is_snapshot,
                )
            )
    return causes


def earlier_message(instance: dg.DagsterInstance, collection: Collection, cause: str) -> EarlierMessage | None:
    """Return the last message of a cause that goes on: a day of it has not succeeded since."""
    records = instance.get_run_records(dg.RunsFilter(tags={names.CAUSE_TAG: cause}), limit=_MOST_OF_A_CAUSE)
    runs = [record.dagster_run for record in reversed(records)]
    for known in alerted_causes(instance, [collection], [run for run in runs if is_alerted(run)]):
        if known.unsolved:
            last = max(known.runs, key=lambda run: own_tag(run, names.ALERTED_AT_TAG) or "")
            return EarlierMessage(run_id=last.run_id, sent_at=known.sent_at)
    return None


def _unsolved(
    instance: dg.DagsterInstance, collection: Collection, runs: Sequence[dg.DagsterRun], *, is_snapshot: bool
) -> tuple[tuple[dg.DagsterRun, ...], tuple[dg.DagsterRun, ...]]:
    """Return what is unsolved and, of that, unclear."""
    last: Mapping[date, dg.DagsterRun] = {parse_day(run.tags[names.PARTITION_TAG]): run for run in runs}
    past = (past_snapshot_runs if is_snapshot else past_runs)(instance, collection, list(last))
    unsolved = {day: run for day, run in last.items() if not _succeeded_after(instance, run, past[day])}
    unclear = (run for day, run in unsolved.items() if _succeeded_since(run, past[day]))
    return tuple(unsolved.values()), tuple(unclear)


def _succeeded_after(instance: dg.DagsterInstance, run: dg.DagsterRun, past: Sequence[PastRun]) -> bool:
    """Whether a later run has succeeded of those that publish, or of the same assets where this one publishes none.

    Of a run for records those for tables alone do not count: the records may be what failed.
    """
    ids = [each.run_id for each in past]
    if run.run_id in ids:
        publishes_records = past[ids.index(run.run_id)].publishes_records
        return any(each.publishes_records or not publishes_records for each in _succeeded_since(run, past))
    filters = dg.RunsFilter(
        tags={names.PARTITION_TAG: run.tags[names.PARTITION_TAG]}, statuses=[dg.DagsterRunStatus.SUCCESS]
    )
    record = instance.get_run_record_by_id(run.run_id)
    since = _ended_at(record) if record else 0.0
    later = [each.dagster_run for each in instance.get_run_records(filters) if _ended_at(each) > since]
    assets = run.asset_selection or frozenset()
    return any(each.run_id in ids or assets <= (each.asset_selection or frozenset()) for each in later)


def _succeeded_since(run: dg.DagsterRun, past: Sequence[PastRun]) -> list[PastRun]:
    ids = [each.run_id for each in past]
    later = past[ids.index(run.run_id) + 1 :] if run.run_id in ids else ()
    return [each for each in later if each.state is RunState.SUCCEEDED]


def ended_lately(record: dg.RunRecord, now: datetime) -> bool:
    """Whether a run ended recently enough to be reminded of; its tags may have changed since."""
    return _ended_at(record) >= (now - REMINDS_FOR).timestamp()


def _ended_at(record: dg.RunRecord) -> float:
    return record.end_time or record.create_timestamp.timestamp()
