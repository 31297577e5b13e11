"""`corporate_storage/<collection>`: the pinned input of one storage day. Checks the gate, lists, writes; no cluster."""

from collections.abc import Callable, Sequence

import dagster as dg
from pydantic import Field

from cdi_dagster import names
from cdi_dagster.assets.gate import gate_is_overridden, pass_gate
from cdi_dagster.assets.markdown import markdown_table
from cdi_dagster.assets.plots import Metadata, only_plotted_as_numbers
from cdi_dagster.assets.steps import recorded_step
from cdi_dagster.core.automation import Automation
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.gate import CoalescerStatus
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.core.storage_keys import pinned_input_history_key
from cdi_dagster.ingestion.day_volumes import DayVolumes
from cdi_dagster.ingestion.pinning import pin_storage_day
from cdi_dagster.ingestion.status_rows import gate_detail
from cdi_dagster.interfaces import CoalescerStatusSource, StatusTable
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.storage.interface import StorageError
from cdi_dagster.storage.roots import Roots

_SHOWN = 20


class InputConfig(dg.Config):
    """What a person may configure for one day's input when launching it by hand."""

    override_gate: bool = Field(
        default=False,
        description="Continue although the coalescer is not known to be complete. Only where you know better than the "
        "reason given: an object that vanishes while it is read fails the run with INPUT_CHANGED.",
    )
    wait_for_coalescer_minutes: int = Field(
        default=0, ge=0, le=240, description="How many minutes to wait for a closed gate, instead of failing at once."
    )
    allow_empty: bool = Field(
        default=False,
        description="Publish an empty day, instead of failing with INPUT_INVALID, where there are no objects at all.",
    )
    allow_fewer_offsets: bool = Field(
        default=False,
        description="Continue although the day lacks offsets that it had when it was pinned or published before, "
        "instead of failing with OFFSETS_LOST: their records are removed from what is published.",
    )


def corporate_input_asset(
    collection: Collection,
    partitions: dg.DailyPartitionsDefinition,
    *,
    automation: Automation,
    sleep: Callable[[float], None],
    is_coalesced_here: bool = False,
) -> dg.AssetsDefinition:
    """Return the input asset of a collection; `sleep` waits so many seconds for a closed gate."""

    @dg.asset(
        key=names.input_key(collection),
        deps=[names.coalesced_key(collection)] if is_coalesced_here else [],
        partitions_def=partitions,
        group_name=collection.asset_name,
        owners=list(names.OWNERS),
        kinds={"gzip", "json"},
        tags={**names.collection_tag(collection), "cdi/layer": "corporate_storage"},
        description=(
            f"The pinned input of `{collection.id}`: the exact objects of one storage day that a run reads.\n\n"
            "**Grain**: one manifest per storage day; one entry per object, with key, size, ETag, version and Kafka "
            "offsets.\n\n"
            "Checks the coalescer first: while it is not complete nothing starts. Then lists the day, leaves out raw "
            "objects that a coalesced one holds, fails on overlaps that it cannot resolve, and writes the manifest."
        ),
    )
    def corporate_input(
        context: dg.AssetExecutionContext,
        config: InputConfig,
        roots: dg.ResourceParam[Roots],
        coalescer_status: dg.ResourceParam[CoalescerStatusSource],
        status_table: dg.ResourceParam[StatusTable],
        options: IngestOptions,
    ) -> dg.MaterializeResult:
        with recorded_step(
            context,
            collection,
            "pin",
            status_table=status_table,
            options=options,
            automation=automation,
            followed_by=(names.daily_records_key(collection),),
        ) as step:
            try:
                status = pass_gate(
                    context,
                    coalescer_status,
                    step.day,
                    wait_minutes=config.wait_for_coalescer_minutes,
                    sleep=sleep,
                )
            except CdiError as error:
                error.detail["size"] = DayVolumes().in_words(roots, step.day)
                raise
            step.add_gate(status, overridden=gate_is_overridden(context, collection))
            pinned = pin_storage_day(
                roots, step.day, allow_empty=config.allow_empty, allow_fewer_offsets=config.allow_fewer_offsets
            )
            step.add_pinned(pinned, allow_fewer_offsets=config.allow_fewer_offsets)
            manifest = pinned_input_history_key(step.day, pinned.fingerprint)
            metadata = _metadata(pinned, status) | {
                **_compared_with_usual(roots, step.day),
                **gate_detail(status, overridden=gate_is_overridden(context, collection)),
                "manifest": dg.MetadataValue.path(roots.published.uri(manifest)),
                "correlation_id": step.correlation_id,
                "allow_fewer_offsets": config.allow_fewer_offsets,
            }
        return dg.MaterializeResult(
            metadata=only_plotted_as_numbers(metadata), data_version=dg.DataVersion(pinned.fingerprint)
        )

    return corporate_input


def _metadata(pinned: PinnedInput, status: CoalescerStatus) -> Metadata:
    objects = len(pinned.objects)
    metadata: Metadata = {
        "day": "as expected" if objects else "EMPTY: there are no objects",
        "objects": objects,
        "input_bytes": pinned.input_bytes,
        "offsets": pinned.offset_count,
        "mean_object_bytes": round(pinned.input_bytes / objects) if objects else 0,
        "coalesced_objects": sum(entry.name.coalesced for entry in pinned.objects),
        "left_out_objects": len(pinned.left_out),
        "gaps": len(pinned.gaps),
        "missing_offsets": sum(gap.offset_count for gap in pinned.gaps),
        "fingerprint": pinned.fingerprint,
        "coalescer_state": str(status.state),
        "coalescer_reason": status.reason,
    }
    if pinned.left_out:
        left_out = [(f"`{left.key}`", f"`{left.covered_by}`", left.why) for left in pinned.left_out]
        metadata["left_out"] = _first_rows(("left out", "held by", "why"), left_out)
    if pinned.gaps:
        gaps = [(gap.kafka_partition, gap.first_offset, gap.last_offset) for gap in pinned.gaps]
        metadata["missing"] = _first_rows(("Kafka partition", "first offset", "last offset"), gaps)
    return metadata


def _compared_with_usual(roots: Roots, day: CollectionDay) -> dict[str, str | int]:
    """Return the day's size compared with the median of the days before it; never fails."""
    try:
        diagnosis = DayVolumes().diagnosis(roots, day)
    except StorageError as error:
        return {"size_against_the_usual": f"not compared: {error}"}
    figures: dict[str, str | int] = {"size_against_the_usual": diagnosis.summary}
    if diagnosis.usual:
        figures |= {"usual_bytes": diagnosis.usual.bytes, "usual_offsets": diagnosis.usual.offsets}
        if diagnosis.objects_compare:
            figures |= {
                "usual_objects": diagnosis.usual.objects,
                "usual_mean_object_bytes": round(diagnosis.usual.mean_object_bytes),
            }
    return figures


def _first_rows(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.MetadataValue:
    more = len(rows) - _SHOWN
    return markdown_table(headings, rows[:_SHOWN], note=f"{more} more in the manifest." if more > 0 else "")
