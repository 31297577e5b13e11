"""The gate inside the run: checked first, whoever requested the run, and again before Spark is launched."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.gate import CoalescerStatus, require_open
from cdi_dagster.core.launch_decision import launch_of
from cdi_dagster.interfaces import CoalescerStatusSource
from cdi_dagster.run_records import assets_of_run

_POLL_SECONDS = 15.0


def pass_gate(
    context: dg.AssetExecutionContext,
    source: CoalescerStatusSource,
    day: CollectionDay,
    *,
    wait_minutes: int = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> CoalescerStatus:
    """Return the coalescer's status where the gate is open, or where the config of this run overrides it.

    Args:
        context: of the asset.
        source: of the coalescer's status.
        day: whose gate.
        wait_minutes: how long to wait for a closed gate before giving up.
        sleep: how to wait.

    Raises:
        CdiError: COALESCER_RUNNING, _NOT_STARTED, _FAILED or _UNKNOWN.
    """
    status = source.status(day)
    for _ in range(round(wait_minutes * 60 / _POLL_SECONDS)):
        if status.is_open or gate_is_overridden(context, day.collection):
            break
        context.log.info(f"Waiting for the coalescer, {status.state}: {status.reason}")
        sleep(_POLL_SECONDS)
        status = source.status(day)
    if status.is_open:
        _tag_launch(context, day, status)
    elif gate_is_overridden(context, day.collection):
        context.log.warning(f"override_gate: continuing although the coalescer is {status.state}: {status.reason}")
    else:
        require_open(status)
    return status


def _tag_launch(context: dg.AssetExecutionContext, day: CollectionDay, status: CoalescerStatus) -> None:
    """Tag first what this run is launched for, so that the sensor also counts a run of a person, however it ends."""
    if names.daily_records_key(day.collection) in assets_of_run(context):
        context.instance.add_run_tags(context.run.run_id, {names.LAUNCH_TAG: launch_of(day.storage_day, status)})


def gate_is_overridden(context: dg.AssetExecutionContext, collection: Collection) -> bool:
    """Whether the config of this run sets `override_gate`, on the input or on the daily records."""
    run_config: Mapping[str, Any] = context.run.run_config
    ops: Mapping[str, Any] = run_config.get("ops", {})
    keys = (names.input_key(collection), names.daily_records_key(collection))
    return any(ops.get(key.to_python_identifier(), {}).get("config", {}).get("override_gate", False) for key in keys)
