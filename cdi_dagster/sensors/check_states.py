"""What the checks of a collection's daily records show: the state of the newest day, whatever ran last.

Dagster shows the last event of a check. While a backfill of old days is at work, or after it failed, that would be
"In progress", "Execution failed" or the state of a day of two years ago. So the sensor reports a check again where
something else is shown; where nothing else is, a tick reports nothing.

A check with partitions (Dagster 1.13, in preview) keeps a state for each, but its row on the asset's page still shows
the last event of any of them, so it would not help.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from cdi_dagster import names
from cdi_dagster.checks.daily_records import (
    CHECK_OF_CLASS,
    evaluation_of,
    results_of,
    unpublished_result,
    unreadable_result,
)
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.launch_decision import DayFacts, RunState
from cdi_dagster.storage.interface import Storage

LATE_DAYS = "late"
"""Metadata of an evaluation of the on-time check: the late days."""
DECIDED = "decided"
"""Metadata of the same: what was decided about the newest day, or the newest late one, and what it waits for."""
_IDENTITY = (names.CHECKED_DAY, names.CHECKED_RUN, LATE_DAYS, DECIDED)


@dataclass(frozen=True, kw_only=True)
class CheckState:
    """What a check has to show.

    Attributes:
        name: of the check.
        identity: values of its metadata, by which one that is shown is recognised.
        evaluate: returns the evaluation; it may read storage.
    """

    name: str
    identity: tuple[str | None, ...]
    evaluate: Callable[[], dg.AssetCheckEvaluation]


def newest_states(collection: Collection, published: Storage, facts: Sequence[DayFacts]) -> list[CheckState]:
    """Return the state of each check of published records: that of the newest day that has one.

    A day that was not published for just what is checked (rejects, counts) turns that check red, and leaves the others.

    Args:
        collection: whose daily records.
        published: where they are.
        facts: of the due days, oldest first.
    """
    states: dict[str, CheckState] = {}
    for day in reversed(facts):
        run = next((run for run in reversed(day.runs_for_records) if run.state is not RunState.LIVE), None)
        failed = CHECK_OF_CLASS.get(run.failure_class) if run and run.failure_class else None
        if run and failed:
            states.setdefault(failed, _state(collection, published, day, failed, run.run_id, run.failure_class))
        if day.published_from and not day.unreadable:
            for name in results_of(collection):
                states.setdefault(name, _state(collection, published, day, name, day.published_from.run_id, None))
    return list(states.values())


def _state(
    collection: Collection, published: Storage, facts: DayFacts, name: str, run_id: str | None, failure: Any
) -> CheckState:
    day = collection.on(facts.storage_day)

    def evaluate() -> dg.AssetCheckEvaluation:
        try:
            result = unpublished_result(day, str(failure)) if failure else results_of(collection)[name](published, day)
        except CdiError as error:
            result = unreadable_result(day, error.cause)
        return evaluation_of(day, name, result, run_id=run_id)

    return CheckState(name=name, identity=(day.storage_day.isoformat(), run_id, None, None), evaluate=evaluate)


def evaluations_to_report(
    instance: dg.DagsterInstance, collection: Collection, states: Sequence[CheckState]
) -> list[dg.AssetCheckEvaluation]:
    """Return the evaluations of those checks that show something else now.

    Raises:
        StorageError: what is published could not be read.
    """
    asset = names.daily_records_key(collection)
    keys = {state.name: dg.AssetCheckKey(asset, state.name) for state in states}
    shown = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys.values()))
    materialization = instance.get_latest_materialization_event(asset)
    return [state.evaluate() for state in states if not _shows(shown.get(keys[state.name]), state, materialization)]


def _shows(record: Any, state: CheckState, materialization: dg.EventLogEntry | None) -> bool:
    """Whether the UI shows the state: the last evaluation, if nothing was materialised since."""
    evaluation = record.evaluation if record else None
    if not isinstance(evaluation, dg.AssetCheckEvaluation):
        return False  # a run that is to evaluate it is at work, or has failed before it did
    is_current = (
        materialization is None
        or materialization.run_id == record.run_id
        or record.event.timestamp >= materialization.timestamp
    )
    values = {name: value.value for name, value in evaluation.metadata.items()}
    return is_current and tuple(values.get(name) for name in _IDENTITY) == state.identity
