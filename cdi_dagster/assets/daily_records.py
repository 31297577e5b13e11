"""`<collection>/daily_records`, of a keyed one `daily_rows`: one storage day decrypted, cleaned, published.

By the Spark job `ingest_daily`.
"""

from contextlib import suppress
from dataclasses import asdict

import dagster as dg
from pydantic import Field

from cdi_dagster import names
from cdi_dagster.assets.attempts import attempt_values, attempts_metadata, spent_metadata
from cdi_dagster.assets.gate import gate_is_overridden, pass_gate
from cdi_dagster.assets.plots import Metadata, only_plotted_as_numbers
from cdi_dagster.assets.reject_report import reject_metadata
from cdi_dagster.assets.steps import recorded_step
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.ingest_report import IngestReport
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.core.spark_jobs import INGEST_DAILY
from cdi_dagster.ingestion.ingestion_lease import discard_after_failure, ingestion_lease
from cdi_dagster.ingestion.pinning import read_pinned_input, require_unchanged
from cdi_dagster.ingestion.status_rows import StepRecord, gate_detail
from cdi_dagster.ingestion.steps import ingest_step
from cdi_dagster.interfaces import (
    CoalescerStatusSource,
    LaunchEvidence,
    PySparkStepLauncher,
    StatusTable,
)
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.run_records import assets_of_run, require_not_made_since
from cdi_dagster.storage.interface import Storage, StorageError
from cdi_dagster.storage.roots import Roots

_MAY_BE_THE_INPUT = (FailureClass.COALESCER_UNKNOWN, FailureClass.COALESCER_NOT_STARTED)
"""Classes of a gate that a missing or new object may have closed: a run that does not pin names that object."""


class IngestConfig(dg.Config):
    """What a person may configure for one day's ingestion when launching it by hand."""

    max_rejected: str | None = Field(
        default=None,
        description="Most rejects this day may have and still be published: a number (`10`) or a share (`0.1%`). "
        "Default: the setting CDI_MAX_REJECTED.",
    )
    override_gate: bool = Field(
        default=False,
        description="Continue although the coalescer is not known to be complete (see the input asset).",
    )
    allow_sparse_offsets: bool = Field(
        default=False,
        description="Accept objects that hold fewer records than their names state offsets: only for topics that are "
        "compacted or transactional.",
    )


def daily_records_asset(
    collection: Collection, partitions: dg.DailyPartitionsDefinition, *, automation: Automation
) -> dg.AssetsDefinition:
    """Return the daily records asset of a collection."""

    @dg.asset(
        key=names.daily_records_key(collection),
        deps=[names.input_key(collection)],
        partitions_def=partitions,
        group_name=collection.asset_name,
        owners=list(names.OWNERS),
        kinds={"pyspark", "orc" if collection.is_keyed else "json"},
        tags={**names.collection_tag(collection), "cdi/layer": collection.output_name},
        pool=names.ingest_pool(collection),
        description=(
            f"{_form(collection)}\n\n"
            "Reads exactly the pinned objects; every envelope becomes a record, or a reject that is kept with its "
            "reason. All or nothing is published: a failed run leaves the previous publication as it was."
        ),
    )
    def daily_records(
        context: dg.AssetExecutionContext,
        config: IngestConfig,
        roots: dg.ResourceParam[Roots],
        coalescer_status: dg.ResourceParam[CoalescerStatusSource],
        step_launcher: dg.ResourceParam[PySparkStepLauncher],
        status_table: dg.ResourceParam[StatusTable],
        options: IngestOptions,
    ) -> dg.MaterializeResult:
        with recorded_step(
            context,
            collection,
            INGEST_DAILY.name,
            status_table=status_table,
            options=options,
            automation=automation,
            followed_by=names.table_keys(collection),
        ) as step:
            # Hours may have passed since the pin (a queue, a re-run of this asset alone): check again.
            try:
                status = pass_gate(context, coalescer_status, step.day)
            except CdiError as closed:
                pins = names.input_key(collection) in assets_of_run(context)
                if closed.failure_class in _MAY_BE_THE_INPUT and not pins:
                    _name_what_changed(roots, step.day)
                raise
            overridden = gate_is_overridden(context, collection)
            step.add_gate(status, overridden=overridden)
            with ingestion_lease(roots.published, step.day, holder=step.correlation_id, log=context.log.info) as lease:
                pinned = _require_pin(roots.published, step.day)
                require_not_made_since(context, pinned.fingerprint)
                # The second listing: what is the same in both was complete when the gate was checked between them.
                require_unchanged(roots.corporate, pinned)
                spark_step = ingest_step(
                    step.day,
                    pinned,
                    roots.published,
                    correlation_id=step.correlation_id,
                    key_service=options.key_service,
                    max_rejected=config.max_rejected or options.max_rejected,
                    allow_sparse_offsets=config.allow_sparse_offsets,
                    is_followed=not step.ends_run,
                )
                with discard_after_failure(roots.published, step.day, lease):
                    evidence = step_launcher.launch(context, spark_step)
            report = IngestReport.from_json(evidence.report)
            step.cluster_id = evidence.cluster_id
            step.detail["attempts"] = attempt_values(evidence.attempts)
            step.add_ingested(report, roots.published)
            metadata = _metadata(report, evidence, step, roots.published)
            metadata |= gate_detail(status, overridden=overridden)
        return dg.MaterializeResult(
            metadata=only_plotted_as_numbers(metadata),
            data_version=dg.DataVersion(pinned.fingerprint),
        )

    return daily_records


def _form(collection: Collection) -> str:
    if collection.is_keyed:
        return (
            f"The daily rows of `{collection.id}`: every change of an id, decrypted, validated, sanitised, in ORC by "
            "`id_part`, sorted by `id`.\n\n**Grain**: one row per event (INSERT or DELETE) of one storage day, "
            "published under the export day (storage day + 1)."
        )
    return (
        f"The daily records of `{collection.id}`: decrypted, validated, sanitised, as gzipped JSON lines.\n\n"
        "**Grain**: one line per record of one storage day, published under the export day (storage day + 1)."
    )


def _name_what_changed(roots: Roots, day: CollectionDay) -> None:
    """Raise INPUT_CHANGED where the pin that the run would read does not hold; return where that cannot be decided."""
    with suppress(StorageError):  # the gate's reason names it too
        pinned = read_pinned_input(roots.published, day)
        if pinned:
            require_unchanged(roots.corporate, pinned)


def _require_pin(published: Storage, day: CollectionDay) -> PinnedInput:
    pinned = read_pinned_input(published, day)
    if pinned is None:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{day.collection.id} was never pinned for {day.storage_day}.",
            next_step=f"Materialise {names.input_key(day.collection).to_user_string()} for the day first, or together "
            "with this asset.",
        )
    return pinned


def _metadata(report: IngestReport, evidence: LaunchEvidence, step: StepRecord, published: Storage) -> Metadata:
    metadata: Metadata = {
        "records_read": report.read,
        "records_published": report.published,
        "records_rejected": report.rejected,
        "input_objects": len(report.objects),
        "input_bytes": int(report.totals["input_bytes"]),
        "record_bytes": report.record_bytes,
        "published_bytes": report.published_bytes,
        "parts": report.parts,
        "seconds": round(report.seconds, 2),
        "records_per_second": round(report.read / report.seconds, 1) if report.seconds else 0.0,
        "key_service_calls": report.key_service.calls,
        "key_service_cache_hits": report.key_service.cache_hits,
        "key_service_retries": report.key_service.retries,
        "key_service_seconds": round(report.key_service.seconds, 3),
        "fallback_records": report.fallback_records,
        "published_to": dg.MetadataValue.path(step.daily_records_uri or ""),
        "fingerprint": report.fingerprint,
        "correlation_id": step.correlation_id,
        "cluster_id": evidence.cluster_id,
        "log": dg.MetadataValue.path(evidence.log_location),
        "attempts": attempts_metadata(attempt_values(evidence.attempts)),
        **spent_metadata(evidence.attempts),
    }
    for db_type, rows in (report.db_types or {}).items():
        metadata[f"rows_{db_type.lower()}"] = rows
    if report.rejected:
        samples = [asdict(sample) for sample in report.reject_samples]
        metadata |= reject_metadata(report.totals["rejected_by_reason"], samples)
    if report.rejects_prefix:
        metadata["rejects"] = dg.MetadataValue.path(published.uri(report.rejects_prefix))
    return metadata
