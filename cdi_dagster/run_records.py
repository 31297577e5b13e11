"""What Dagster's run records show about a storage day, and how a run is requested. The only module that reads them.

Used by assets, schedules and sensors, so that they agree on which run is about which day.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.automation import calls_for_another
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of, parse_day, storage_day_of
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.launch_decision import RUN_AGAIN_WHEN_POSSIBLE, LaunchDecision, PastRun, RunState
from cdi_dagster.own_tags import own_tag

LIVE_RUN_STATUSES = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)

BEFORE_BACKFILLS = "10"
"""Priority of what automation launches: this morning's day goes before the rest of a month that is being backfilled."""
AS_A_BACKFILL = "0"
"""Priority of a day before the look-back, which is part of a backfill."""

_MOST_MADE_MEANWHILE = 10

_MadeBy = Callable[[dg.DagsterRun, Collection], frozenset[dg.AssetKey]]

_STATES: Mapping[dg.DagsterRunStatus, RunState] = {
    **dict.fromkeys(LIVE_RUN_STATUSES, RunState.LIVE),
    dg.DagsterRunStatus.SUCCESS: RunState.SUCCEEDED,
    dg.DagsterRunStatus.FAILURE: RunState.FAILED,
    dg.DagsterRunStatus.CANCELED: RunState.CANCELED,
}


def assets_of_run(context: dg.AssetExecutionContext) -> frozenset[dg.AssetKey]:
    """Return every asset that this run materialises: of a job all of it, else what was selected."""
    return frozenset(context.job_def.asset_layer.executable_asset_keys)


def missing_of(instance: dg.DagsterInstance) -> list[str]:
    """Return what an instance lacks of what `deploy/dagster.yaml` configures, where Dagster has not read it."""
    missing = []
    granularity = instance.get_concurrency_config().pool_config.pool_granularity
    if granularity is None or granularity.value != "op":
        missing.append("pools of granularity op: days would not wait for each other")
    if not instance.run_monitoring_enabled:
        missing.append("run monitoring: a killed run would look as if it were at work for ever")
    if not instance.run_launcher.supports_check_run_worker_health:
        missing.append("the run launcher: a run whose machine was lost would look as if it were at work for ever")
    return missing


def require_only_run(context: dg.AssetExecutionContext, collection: Collection) -> None:
    """Return where no older run of this collection and day that publishes the same is running or queued.

    A run of the records publishes all: what others make of them. And of a backfill's runs of the day only the oldest
    goes on, whether it has ended or not: two daemons may submit it twice, seconds apart.

    Raises:
        CdiError: DUPLICATE_RUN, naming the other run. The older of two always continues.
    """
    _require_only_run_of_backfill(context, collection)
    _require_oldest(context, collection, _published_by, names.daily_records_key(collection), what=collection.id)


def require_only_snapshot_run(context: dg.AssetExecutionContext, collection: Collection) -> None:
    """Return where no older run that makes the same snapshot is running or queued.

    Raises:
        CdiError: DUPLICATE_RUN, naming the other run. The older of two always continues.
    """
    what = f"the snapshot of {collection.id}"
    _require_oldest(context, collection, _made_of_snapshot, names.snapshot_key(collection), what=what)


def require_not_made_since(context: dg.AssetExecutionContext, fingerprint: str) -> None:
    """Return where nobody has materialised this partition from the same input since this run began.

    A run waits for its pool, and meanwhile one may go on that looked ended when it began: two daemons may both start a
    run, of which Dagster then reports that it failed. Or it is this run's other worker. What a lost run left, a cluster
    still at work on it or what that published, is no reason to stop: nobody else will follow it to its end.

    Raises:
        CdiError: DUPLICATE_RUN, naming the run that has.
    """
    mine = context.instance.get_run_record_by_id(context.run.run_id)
    if mine is None or mine.start_time is None:
        return
    since = dg.AssetRecordsFilter(
        asset_key=context.asset_key, asset_partitions=[context.partition_key], after_timestamp=mine.start_time
    )
    for made in context.instance.fetch_materializations(since, limit=_MOST_MADE_MEANWHILE).records:
        materialization = made.asset_materialization
        version = materialization.tags.get(names.DATA_VERSION_TAG) if materialization and materialization.tags else None
        if version == fingerprint:
            raise CdiError(
                FailureClass.DUPLICATE_RUN,
                f"Run {made.run_id} has materialised {context.asset_key.to_user_string()} of {context.partition_key} "
                "from the same input since this run began.",
                detail={"run_id": made.run_id},
            )


def is_materialised_since(
    instance: dg.DagsterInstance, key: dg.AssetKey, partition: date, since: datetime | None
) -> bool:
    """Whether a partition was materialised since a moment, by whatever run; not since a run that never started."""
    if since is None:
        return False
    before = since - timedelta(microseconds=1)  # the filter leaves out its own moment
    found = dg.AssetRecordsFilter(
        asset_key=key, asset_partitions=[partition.isoformat()], after_timestamp=before.timestamp()
    )
    return bool(instance.fetch_materializations(found, limit=1).records)


def _require_oldest(
    context: dg.AssetExecutionContext, collection: Collection, made_by: _MadeBy, first: dg.AssetKey, *, what: str
) -> None:
    """Return where no older live run makes the same, or `first`, of which the others are made."""
    records = context.instance.get_run_records(
        dg.RunsFilter(tags={names.PARTITION_TAG: context.partition_key}, statuses=list(LIVE_RUN_STATUSES))
    )
    mine = next((record for record in records if record.dagster_run.run_id == context.run.run_id), None)
    if mine is None:
        return
    for record in records:
        older = (record.create_timestamp, record.storage_id) < (mine.create_timestamp, mine.storage_id)
        theirs = made_by(record.dagster_run, collection)
        if older and (first in theirs or theirs & assets_of_run(context)):
            raise CdiError(
                FailureClass.DUPLICATE_RUN,
                f"Run {record.dagster_run.run_id} of {what} for {context.partition_key} is "
                f"{record.dagster_run.status.value.lower()} and came first.",
                detail={"run_id": record.dagster_run.run_id},
            )


def _require_only_run_of_backfill(context: dg.AssetExecutionContext, collection: Collection) -> None:
    backfill, mine = context.run.tags.get(names.BACKFILL_TAG), _published_by(context.run, collection)
    if backfill is None or context.run.parent_run_id is not None:  # a re-execution has the tags of its parent
        return
    filters = dg.RunsFilter(tags={names.PARTITION_TAG: context.partition_key, names.BACKFILL_TAG: backfill})
    of_backfill = [record.dagster_run for record in context.instance.get_run_records(filters, ascending=True)]
    first = next((run for run in of_backfill if _published_by(run, collection) & mine), None)
    if first is not None and first.run_id != context.run.run_id:
        raise CdiError(
            FailureClass.DUPLICATE_RUN,
            f"Backfill {backfill} has run {first.run_id} of {collection.id} for {context.partition_key} already "
            f"({first.status.value.lower()}), and submitted another.",
            detail={"run_id": first.run_id},
        )


def _published_by(run: dg.DagsterRun, collection: Collection) -> frozenset[dg.AssetKey]:
    """Return what a run of any origin publishes of a collection: its daily records, its tables, both or nothing."""
    keys = frozenset({names.daily_records_key(collection), *names.table_keys(collection)})
    return _selected(run, keys, names.daily_job_name(collection))


def _made_of_snapshot(run: dg.DagsterRun, collection: Collection) -> frozenset[dg.AssetKey]:
    """Return what a run of any origin makes of a collection's snapshot: it, its tables, both or nothing."""
    return _selected(run, names.snapshot_keys(collection), names.snapshot_job_name(collection))


def _selected(run: dg.DagsterRun, keys: frozenset[dg.AssetKey], job_name: str) -> frozenset[dg.AssetKey]:
    """Return which of a job's assets a run makes: a run of another job, too, may have some selected."""
    if run.asset_selection:
        return keys & run.asset_selection
    return keys if run.job_name == job_name else frozenset()


def touches(run: dg.DagsterRun, collection: Collection) -> bool:
    """Whether a run of any origin is about one storage day of any of a collection's assets."""
    if names.PARTITION_TAG not in run.tags:
        return False
    if run.asset_selection:
        return not run.asset_selection.isdisjoint({names.coalesced_key(collection), *names.keys_of(collection)})
    return run.job_name == names.daily_job_name(collection)


def makes_snapshot(run: dg.DagsterRun, collection: Collection) -> bool:
    """Whether a run of any origin is about the snapshot of one Friday, or tables of it."""
    return names.PARTITION_TAG in run.tags and bool(_made_of_snapshot(run, collection))


def interruption() -> CdiError:
    """Return the failure of a run whose process was stopped together with Dagster."""
    return CdiError(FailureClass.INTERRUPTED, "Dagster was stopped during the run.")


def interruption_of(context: dg.AssetExecutionContext) -> CdiError | None:
    """Return the failure of a run that is being interrupted, or None where a person terminated it.

    The run's process gets the same signal in both cases.
    """
    run = context.instance.get_run_by_id(context.run.run_id)
    is_terminated = run is not None and run.status in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)
    return None if is_terminated else interruption()


def is_sensor_on(instance: dg.DagsterInstance, name: str, *, default: bool) -> bool:
    """Whether a sensor is on: as a person switched it, else as the settings do."""
    if instance.schedule_storage is None:  # an instance in memory has none
        return default
    switched = [state.status.value for state in instance.all_instigator_state() if state.name == name]
    return switched[-1] == "RUNNING" if switched and switched[-1] != "DECLARED_IN_CODE" else default


def days_to_run_again(instance: dg.DagsterInstance, collection: Collection, *, since: datetime) -> list[date]:
    """Return the days, however old, whose recent runs call for another: the sensor completes backfills."""
    records = instance.get_run_records(
        dg.RunsFilter(tags={names.FAILURE_CLASS_TAG: sorted(RUN_AGAIN_WHEN_POSSIBLE)}, updated_after=since)
    )
    runs = [record.dagster_run for record in records]
    days = sorted({parse_day(run.tags[names.PARTITION_TAG]) for run in runs if _published_by(run, collection)})
    return [day for day, past in past_runs(instance, collection, days).items() if calls_for_another(past, since)]


def past_runs(
    instance: dg.DagsterInstance, collection: Collection, storage_days: Sequence[date]
) -> Mapping[date, tuple[PastRun, ...]]:
    """Return the runs that publish a collection's records or tables, of any origin, oldest first, by storage day."""
    return _past_runs(instance, collection, storage_days, _published_by, names.daily_records_key(collection))


def past_snapshot_runs(
    instance: dg.DagsterInstance, collection: Collection, export_days: Sequence[date]
) -> Mapping[date, tuple[PastRun, ...]]:
    """Return the runs that make a collection's snapshots or tables of them, oldest first, by export day."""
    return _past_runs(instance, collection, export_days, _made_of_snapshot, names.snapshot_key(collection))


def _past_runs(
    instance: dg.DagsterInstance,
    collection: Collection,
    partitions: Sequence[date],
    made_by: _MadeBy,
    records_key: dg.AssetKey,
) -> Mapping[date, tuple[PastRun, ...]]:
    """Return the runs that make something, by partition; what is not `records_key` of it are tables."""
    if not partitions:
        return {}
    days = {day.isoformat(): day for day in partitions}
    found: dict[date, list[PastRun]] = defaultdict(list)
    records = instance.get_run_records(
        dg.RunsFilter(tags={names.PARTITION_TAG: list(days)}, statuses=list(_STATES)), ascending=True
    )
    for record in records:
        made = made_by(record.dagster_run, collection)
        if made:
            found[days[record.dagster_run.tags[names.PARTITION_TAG]]].append(_past_run(record, made, records_key))
    return {day: tuple(found[day]) for day in partitions}


def _past_run(record: dg.RunRecord, made: frozenset[dg.AssetKey], records_key: dg.AssetKey) -> PastRun:
    run = record.dagster_run
    named = own_tag(run, names.FAILURE_CLASS_TAG)
    return PastRun(
        run_id=run.run_id,
        state=_STATES[run.status],
        launch=run.tags.get(names.LAUNCH_TAG),
        failure_class=FailureClass(named) if named and named in FailureClass.__members__ else None,
        listing_fingerprint=own_tag(run, names.LISTING_TAG),
        started_at=datetime.fromtimestamp(record.start_time, tz=UTC) if record.start_time else None,
        ended_at=datetime.fromtimestamp(record.end_time, tz=UTC) if record.end_time else None,
        by_person=is_by_person(run),
        is_configured=bool(run.run_config.get("ops")),
        publishes_records=records_key in made,
        publishes_tables=bool(made - {records_key}),
        is_alerted=own_tag(run, names.CAUSE_TAG) is not None,
    )


def is_by_person(run: dg.DagsterRun) -> bool:
    """Whether a person requested a run.

    A re-execution copies the tags of its parent; Dagster's own retry of a lost worker is one too.
    """
    if names.RETRY_TAG in run.tags:
        return False
    return names.LAUNCHED_BY_TAG not in run.tags or run.parent_run_id is not None


def tags_to_read(collection: Collection, storage_day: date) -> dict[str, str]:
    """Return the tags by which a person finds a run of a day in the list of runs."""
    return {**names.collection_tag(collection), names.EXPORT_DAY_TAG: str(export_day_of(storage_day))}


def run_request(
    collection: Collection,
    storage_day: date,
    decision: LaunchDecision,
    *,
    launched_by: str,
    priority: str = BEFORE_BACKFILLS,
) -> dg.RunRequest:
    """Return the run request of a LAUNCH decision: the whole day, or its tables alone."""
    return dg.RunRequest(
        run_key=decision.run_key,
        partition_key=storage_day.isoformat(),
        asset_selection=list(names.table_keys(collection)) if decision.tables_only else None,
        # With None it would have the checks of the records, which the run does not make.
        asset_check_keys=[] if decision.tables_only else None,
        tags=tags_to_read(collection, storage_day) | _tags_of(decision, launched_by, priority),
    )


def snapshot_run_request(
    collection: Collection, export_day: date, decision: LaunchDecision, *, leaves_tables: bool
) -> dg.RunRequest:
    """Return the run request of a LAUNCH decision about a snapshot: with its tables, these alone, or without them."""
    selected = [names.snapshot_key(collection)] if leaves_tables else None
    return dg.RunRequest(
        run_key=decision.run_key,
        partition_key=export_day.isoformat(),
        asset_selection=list(names.snapshot_table_keys(collection)) if decision.tables_only else selected,
        tags=tags_to_read(collection, storage_day_of(export_day)) | _tags_of(decision, "sensor", BEFORE_BACKFILLS),
    )


def _tags_of(decision: LaunchDecision, launched_by: str, priority: str) -> dict[str, str]:
    return {
        names.LAUNCH_TAG: decision.launch or "",
        names.LAUNCHED_BECAUSE_TAG: decision.reason,
        names.LAUNCHED_BY_TAG: launched_by,
        names.PRIORITY_TAG: priority,
    }
