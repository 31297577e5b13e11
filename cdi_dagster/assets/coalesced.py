"""`corporate_storage/<collection>_coalesced`: one storage day coalesced by our own coalescer, where nothing else does.

Optional (`CDI_COALESCER_IN_DAGSTER`). The gate behind it is the same: it reads the marker that this leaves.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg

from cdi_dagster import names
from cdi_dagster.assets.steps import recorded_step
from cdi_dagster.coalescer import CoalesceProgress, CoalesceSummary, coalesce_by_processes, progress_text
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.gate import require_open
from cdi_dagster.interfaces import CoalescerStatusSource, StatusTable
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.storage.roots import Roots

_LOG_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Coalescing:
    """How runs coalesce.

    Attributes:
        processes: that share a day.
        lease_seconds: how long a claim counts without a heartbeat.
    """

    processes: int
    lease_seconds: float


def coalesced_asset(
    collection: Collection,
    partitions: dg.DailyPartitionsDefinition,
    *,
    automation: Automation,
    coalescing: Coalescing,
) -> dg.AssetsDefinition:
    """Return the asset that coalesces a collection's days."""

    @dg.asset(
        key=names.coalesced_key(collection),
        partitions_def=partitions,
        group_name=collection.asset_name,
        owners=list(names.OWNERS),
        kinds={"gzip", "json"},
        tags={**names.collection_tag(collection), "cdi/layer": "corporate_storage"},
        pool=names.coalesce_pool(collection),
        description=(
            f"The storage day of `{collection.id}` with its small raw objects merged into larger ones.\n\n"
            "**Grain**: the objects of one storage day: one per Kafka partition, run of offsets and 128 MB.\n\n"
            "Does nothing where the day is complete already. Nothing is deleted before it is stored and verified; a "
            "run that is killed loses and doubles nothing, and the next one continues."
        ),
    )
    def coalesced(
        context: dg.AssetExecutionContext,
        roots: dg.ResourceParam[Roots],
        coalescer_status: dg.ResourceParam[CoalescerStatusSource],
        status_table: dg.ResourceParam[StatusTable],
        options: IngestOptions,
    ) -> dg.MaterializeResult:
        with recorded_step(
            context,
            collection,
            "coalesce",
            status_table=status_table,
            options=options,
            automation=automation,
            followed_by=(names.input_key(collection),),
        ) as step:
            status = coalescer_status.status(step.day)
            if status.is_open:
                return dg.MaterializeResult(metadata={"coalesced": f"already: {status.reason}"})
            if not status.run_coalesces:  # another coalescer is at work, the day is not over, or it is not known
                require_open(status)
            summary = coalesce_by_processes(
                roots.corporate,
                step.day,
                processes=coalescing.processes,
                lease_seconds=coalescing.lease_seconds,
                progress=_log_progress(context.log.info),
            )
            for warning in summary.warnings:
                context.log.warning(warning)
            if summary.failures:
                raise CdiError(
                    FailureClass.COALESCER_FAILED,
                    f"{len(summary.failures)} failures, the first: {summary.failures[0]}",
                    detail={"failures": list(summary.failures[:20])},
                )
        return dg.MaterializeResult(metadata=_metadata(summary))

    return coalesced


def _log_progress(log: Callable[[str], None]) -> Callable[[CoalesceProgress], None]:
    started = logged = time.monotonic()

    def report(progress: CoalesceProgress) -> None:
        nonlocal logged
        now = time.monotonic()
        if now - logged >= _LOG_SECONDS:
            logged = now
            log(progress_text(progress, now - started))

    return report


def _metadata(summary: CoalesceSummary) -> dict[str, str | int | float]:
    return {
        "coalesced": "by this run",
        "objects_before": summary.before.objects,
        "objects_after": summary.after.objects,
        "bytes": summary.after.bytes,
        "offsets": summary.after.offsets,
        "coalesced_objects_written": len(summary.merged),
        "coalesced_objects_finished": len(summary.finished),
        "seconds": round(summary.seconds, 1),
        **({"took_over": summary.took_over} if summary.took_over else {}),
    }
