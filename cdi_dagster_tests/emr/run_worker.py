"""A process that launches a played step in a Dagster run, as a run worker does: tests kill it and start the next.

`main` takes the launcher's config and the step's arguments as JSON, and which run it re-executes.
"""

import json
from datetime import date
from typing import Any

import dagster as dg
from dagster._utils.interrupts import setup_interrupt_handlers

from cdi_dagster.core.spark_jobs import INGEST_DAILY
from cdi_dagster.interfaces import SparkStep
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.emr.launches import QuickLauncher


class RequestedStep(dg.Config):
    arguments: list[str]


@dg.op
def launch_step(context: dg.OpExecutionContext, config: RequestedStep, step_launcher: QuickLauncher) -> None:
    evidence = step_launcher.launch(
        context,
        SparkStep(
            job=INGEST_DAILY,
            arguments=(*config.arguments, "--correlation-id", context.run.run_id),
            collection=AUDIT,
            storage_day=date(2023, 3, 26),
            correlation_id=context.run.run_id,
            input_bytes=10,
        ),
    )
    context.log.info(f"EVIDENCE {json.dumps([attempt.detail['cluster_id'] for attempt in evidence.attempts])}")


@dg.job(executor_def=dg.in_process_executor, resource_defs={"step_launcher": QuickLauncher.configure_at_launch()})
def step_job() -> None:
    launch_step()


def run_config(launcher: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    return {
        "ops": {"launch_step": {"config": {"arguments": arguments}}},
        "resources": {"step_launcher": {"config": launcher}},
    }


def main(config: str, parent: str | None = None) -> int:
    setup_interrupt_handlers()
    requested = json.loads(config)
    with dg.DagsterInstance.get() as instance:
        options = dg.ReexecutionOptions(parent_run_id=parent) if parent else None
        result = dg.execute_job(
            dg.reconstructable(step_job),
            instance=instance,
            run_config=run_config(requested["launcher"], requested["arguments"]) if options is None else None,
            reexecution_options=options,
            raise_on_error=False,
        )
    return 0 if result.success else 1
