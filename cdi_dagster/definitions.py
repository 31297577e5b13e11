"""The code location: everything is wired together here and nowhere else.

`defs` is what Dagster loads; tests call `build_definitions` with fakes. Loading reads settings and opens nothing.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from cdi_dagster import names
from cdi_dagster.assets import Coalescing, build_assets
from cdi_dagster.checks import build_checks
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.failures import CdiError
from cdi_dagster.ingestion.day_volumes import DayVolumes
from cdi_dagster.jobs import build_jobs
from cdi_dagster.partitions import storage_days
from cdi_dagster.resources.alerts import AlertResource
from cdi_dagster.resources.coalescer import CoalescerStatusResource
from cdi_dagster.resources.fixed import fixed
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.resources.local_launcher import LocalPySparkStepLauncher
from cdi_dagster.resources.metrics import MetricsResource
from cdi_dagster.resources.roots import RootsResource
from cdi_dagster.resources.status import StatusTableResource
from cdi_dagster.schedules import build_schedules
from cdi_dagster.sensors import build_sensors
from cdi_dagster.settings import Settings, SettingsError, load_settings
from cdi_dagster.table_definitions import all_with_tables


def build_definitions(
    *,
    settings: Settings | None = None,
    resource_overrides: Mapping[str, Any] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> dg.Definitions:
    """Return the code location.

    Args:
        settings: of the installation; read from the environment by default.
        resource_overrides: resources by name that replace the installation's own.
        sleep: how a run waits for a closed gate, where its config requests that.

    Raises:
        dagster.DagsterInvalidDefinitionError: the settings, or a table definition that they name, cannot be used; one
            line for each problem, with its fix.
    """
    try:
        settings = settings or load_settings()
    except SettingsError as error:
        raise dg.DagsterInvalidDefinitionError(f"The settings cannot be used:\n{error}") from error
    collections = _collections(settings)
    partitions = storage_days(settings.first_storage_day)
    volumes = DayVolumes()
    calendar = settings.calendar
    resources = installation_resources(settings) | dict(resource_overrides or {})
    return dg.Definitions(
        assets=build_assets(
            collections,
            partitions,
            automation=Automation(calendar=calendar, is_on=settings.automation),
            sleep=sleep,
            coalescing=Coalescing(
                processes=settings.coalescer_processes, lease_seconds=settings.coalescer_lease_seconds
            )
            if settings.coalescer_in_dagster
            else None,
            tables_pool=names.LOCAL_METASTORE_POOL if settings.deployment == "local" else None,
        ),
        asset_checks=build_checks(
            collections,
            calendar=calendar,
            automated=settings.automation,
            most_fall_percent=settings.snapshot_most_fall_percent,
        ),
        jobs=build_jobs(collections, coalesce=settings.coalescer_in_dagster),
        schedules=build_schedules(
            collections,
            calendar=calendar,
            local_time_zone=settings.local_time_zone,
            running=settings.automation,
            volumes=volumes,
        ),
        sensors=build_sensors(
            collections,
            calendar=calendar,
            running=settings.automation,
            volumes=volumes,
            metrics=bool(settings.metrics),
        ),
        resources={name: fixed(each) for name, each in resources.items()},
        # A step only drives Spark: a process for each would cost a second and gain nothing. Set here and not on the
        # job: a job's executor does not apply to runs of backfills and of the asset pages.
        executor=dg.in_process_executor,
    )


def _collections(settings: Settings) -> list[Collection]:
    try:
        return all_with_tables(settings.ingested_collections, settings.table_definitions)
    except CdiError as error:
        problems = error.detail.get("problems", [f"{error.cause} {error.next_step}"])
        named = error.detail.get("table_definition", "CDI_TABLE_DEFINITIONS")
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise dg.DagsterInvalidDefinitionError(f"{named} cannot be used:\n{lines}") from error


def installation_resources(settings: Settings) -> dict[str, Any]:
    """Return the resources of an installation by name, configured by its settings; no run can change them (`fixed`)."""
    return {
        "roots": RootsResource(corporate_root=settings.corporate_root, published_root=settings.published_root),
        "coalescer_status": CoalescerStatusResource(
            source=settings.coalescer_source,
            corporate_root=settings.corporate_root,
            published_root=settings.published_root,
            lease_seconds=settings.coalescer_lease_seconds,
            quiet_seconds=settings.coalescer_quiet_seconds,
            batch_queues=list(settings.coalescer_batch_queues),
            runs_coalesce=settings.coalescer_in_dagster,
        ),
        "step_launcher": _step_launcher(settings),
        "status_table": StatusTableResource(
            kind="file" if settings.deployment == "local" else "dynamodb",
            folder=str(settings.status_path),
            table_name=settings.status_table_name,
            weeks_to_exist=settings.status_weeks_to_exist,
        ),
        "alerts": AlertResource(
            target=settings.alert_target, token=settings.alert_token, environment=settings.environment
        ),
        "metrics": MetricsResource(target=settings.metrics, environment=settings.environment),
        "options": IngestOptions(**{name: getattr(settings, name) for name in IngestOptions.model_fields}),
    }


def _step_launcher(settings: Settings) -> dg.ConfigurableResource:
    if settings.deployment == "emr":
        return _emr_launcher(settings)
    return LocalPySparkStepLauncher.of(settings.local_spark)


def _emr_launcher(settings: Settings) -> dg.ConfigurableResource:
    # Imported here: boto3 takes half a second, and a laptop does not need it.
    from cdi_dagster.emr.clusters.launcher import EmrPySparkStepLauncher, why_unusable

    # An unusable template, or a cluster with other code, must fail the deployment, not the first morning after it.
    why = why_unusable(settings)
    if why:
        raise dg.DagsterInvalidDefinitionError(why)
    return EmrPySparkStepLauncher.of(settings)


defs = build_definitions()
