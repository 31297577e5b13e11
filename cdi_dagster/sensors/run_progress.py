"""The optional alerts STARTED and COMPLETED of automated runs. A tag of the run, set after it, marks it as sent."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import dagster as dg

from cdi_dagster import names
from cdi_dagster.core.alert import Alert, AlertLevel
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import parse_day, storage_days_text
from cdi_dagster.interfaces import AlertSink
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.run_records import is_by_person, touches

BEGUN = (
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)
_WORDS = {
    "STARTED": ("has begun", "Records and tables follow; COMPLETED or an alert of failure is sent then."),
    "COMPLETED": ("is complete", "All that the run publishes is published."),
}
_TAGS = {"STARTED": names.STARTED_TAG, "COMPLETED": names.COMPLETED_TAG}


def report_progress(
    instance: dg.DagsterInstance,
    runs: Sequence[dg.DagsterRun],
    collections: Sequence[Collection],
    alerts: AlertSink,
    options: IngestOptions,
) -> Iterator[str]:
    """Send one message for each kind and collection, and yield what was done; what is not sent is tried next time."""
    for kind, tag in _TAGS.items():
        if kind not in options.alert_kinds:
            continue
        groups: dict[str, list[dg.DagsterRun]] = defaultdict(list)
        for run in runs:
            is_reached = kind == "STARTED" or run.status is dg.DagsterRunStatus.SUCCESS
            if is_reached and tag not in run.tags and not is_by_person(run):
                for collection in collections:
                    if touches(run, collection):
                        groups[collection.id].append(run)
        for collection_id, found in groups.items():
            try:
                alerts.send(progress_alert(kind, collection_id, found, options))
            except Exception as error:  # noqa: BLE001 - whatever a sink raises: the next tick sends it
                yield f"{kind} of {collection_id} could not be sent, the next tick retries: {error}"
                continue
            for run in found:
                instance.add_run_tags(run.run_id, {tag: "sent"})
            yield f"{kind} of {collection_id}: alert sent"


def progress_alert(kind: str, collection_id: str, runs: Sequence[dg.DagsterRun], options: IngestOptions) -> Alert:
    """Return the message about runs of one collection; its link is to the first of them."""
    days = sorted({parse_day(run.tags[names.PARTITION_TAG]) for run in runs})
    words, text = _WORDS[kind]
    return Alert(
        kind=kind,
        key=f"{kind.lower()}|{collection_id}|{runs[0].run_id}",
        level=AlertLevel.INFORMATION,
        title=f"{kind}: {collection_id} of {storage_days_text(days)} {words}",
        text=text,
        collection_id=collection_id,
        storage_days=tuple(days),
        runbook=f"{options.runbook_url}#alerts",
        next_step="Nothing.",
        run_url=f"{options.dagster_url}/runs/{runs[0].run_id}",
    )
