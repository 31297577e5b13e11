"""Ticks of schedule and sensor at a chosen moment, on a real instance, and the runs that they ask for."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from freezegun import freeze_time

from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.listing import listing_fingerprint
from cdi_dagster.core.storage_keys import mark_key, tables_report_key
from cdi_dagster.core.tables_report import PublishedTable, TablesReport
from cdi_dagster.published.mark import Mark
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DagsterDay

RECORDS = ("corporate_storage/business_audit", "business_audit/daily_records")
SENSOR = "business_audit_coalescer_completion_sensor"
SCHEDULE = "business_audit_daily_schedule"


def sensor_tick(day: DagsterDay, at: datetime, cursor: str | None = None, *, name: str = SENSOR) -> Any:
    """Evaluate the sensor at a moment, and store the events that it reports, as the daemon does."""
    repository = day.definitions.get_repository_def()
    context = dg.build_sensor_context(
        instance=day.instance, repository_def=repository, resources=day.instigator_resources, cursor=cursor
    )
    with freeze_time(at):
        data = repository.get_sensor_def(name).evaluate_tick(context)
        for event in data.asset_events:
            day.instance.report_runless_asset_event(event)
    return data


def schedule_tick(day: DagsterDay, at: datetime, *, seconds_late: float = 5, name: str = SCHEDULE) -> Any:
    """Evaluate the schedule's tick of a moment, a little later as the daemon does."""
    repository = day.definitions.get_repository_def()
    wanted = ("coalescer_status", "roots")
    context = dg.build_schedule_context(
        instance=day.instance,
        scheduled_execution_time=at,
        resources={name: day.instigator_resources[name] for name in wanted},
        repository_def=repository,
    )
    with freeze_time(at) as clock:
        clock.tick(seconds_late)
        return repository.get_schedule_def(name).evaluate_tick(context)


def launched(data: Any) -> list[str]:
    """Return the days that a tick asks for."""
    return [request.partition_key for request in data.run_requests or []]


def run_as(day: DagsterDay, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """Do what the daemon does with a run request."""
    assert request.partition_key is not None
    storage_day = date.fromisoformat(request.partition_key)
    assets = [key.to_user_string() for key in request.asset_selection or []]
    return day.run(*assets, storage_day=storage_day, tags={**request.tags, "dagster/run_key": request.run_key or ""})


def publish_mark(
    day: DagsterDay,
    storage_day: date,
    *,
    fingerprint: str | None = None,
    run_id: str = "a-run",
    at: datetime = datetime(2023, 3, 27, 9, 40, tzinfo=UTC),
) -> None:
    """Leave the mark of a publication from the objects that are there now, and its tables' report, without a run."""
    if fingerprint is None:
        fingerprint = listing_fingerprint(day.corporate.list(AUDIT.on(storage_day).corporate_prefix))
    mark = Mark(
        fingerprint=fingerprint,
        correlation_id=run_id,
        collection_id=AUDIT.id,
        storage_day=storage_day,
        published=0,
        rejected=0,
        record_bytes=0,
        published_bytes=0,
        parts=(),
        published_at=at,
    )
    day.published.write(mark_key(AUDIT.on(storage_day)), mark.to_bytes())
    with freeze_time(at):
        publish_report(day, storage_day, mark)


def publish_report(
    day: DagsterDay,
    storage_day: date,
    mark: Mark,
    *,
    run_id: str = "a-run",
    tables: Sequence[str] = AUDIT.table_names,
    **values: Any,
) -> None:
    """Leave the closing report of a run that published tables of the records of a mark."""
    facts: dict[str, Any] = {"fingerprint": mark.fingerprint, "records": mark.published} | values
    report = TablesReport(
        correlation_id=run_id,
        collection_id=AUDIT.id,
        storage_day=str(storage_day),
        export_day=str(export_day_of(storage_day)),
        definition="business_audit.json (shipped)",
        definition_sha256="a" * 64,
        tables=tuple(PublishedTable(kind="table", name=name, rows=1, columns=1, seconds=0.1) for name in tables),
        seconds=0.1,
        **facts,
    )
    key = tables_report_key(AUDIT.on(storage_day), run_id)
    day.published.write(key, json.dumps(report.to_json()).encode())
