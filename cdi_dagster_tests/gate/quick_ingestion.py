"""The ingestion without Spark: reads what was pinned, with the real reader and record engine, and publishes it.

It publishes as the Spark job does, by `published.publish`, so that asset, checks, marks and gate around it are real.
Every launch is one line of a file, so that a test can count them across processes.
"""

import base64
import gzip
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from cdi_dagster.core.collections import Collection, find_collection
from cdi_dagster.core.days import export_day_of, parse_day
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.ingest_report import IngestReport, KeyServiceCounts, ObjectCounts, reconcile
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.core.storage_keys import daily_prefix, tables_report_key
from cdi_dagster.core.tables_report import PublishedTable, TablesReport
from cdi_dagster.interfaces import LaunchAttempt, LaunchEvidence, SparkStep
from cdi_dagster.published.publish import IngestOutcome, WrittenPart, publish_day
from cdi_dagster.published.read import read_mark
from cdi_dagster.spark.ingest.pinned_streams import opened
from cdi_dagster.spark.ingest.planning import Piece
from cdi_dagster.spark.ingest.reading import EnvelopeBlock, EnvelopeReader
from cdi_dagster.spark.records.engine import RecordEngine
from cdi_dagster.spark.records.keys import KeyRef
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster.table_definitions import read_table_definition


class UnwrappedKeys:
    """Resolves data keys as the local key service does, without asking it."""

    def data_keys(self, refs: Iterable[KeyRef]) -> dict[KeyRef, bytes]:
        return {ref: base64.b64decode(ref.encrypted_data_key)[::-1] for ref in refs}


def ingest_pinned(corporate: Storage, published: Storage, pinned: PinnedInput, correlation_id: str) -> IngestReport:
    """Read every pinned object, reconcile, publish."""
    collection = find_collection(pinned.collection_id)
    engine = RecordEngine(collection, UnwrappedKeys())
    records, counted = [], []
    with closing(opened(corporate, [Piece(pinned=entry) for entry in pinned.objects])) as streams:
        for piece, stream in streams:
            reader = EnvelopeReader(stream, piece.pinned.key)
            blocks = [block for block in reader.blocks() if isinstance(block, EnvelopeBlock)]
            results = [engine.process(block.lines) for block in blocks]
            records += [result.records for result in results]
            counted.append(_counts(piece.pinned.key, reader, sum(result.published for result in results)))
    reconcile(pinned, counted)
    return _publish(published, collection, pinned, b"".join(records), tuple(counted), correlation_id)


def _counts(key: str, reader: EnvelopeReader, records: int) -> ObjectCounts:
    return ObjectCounts(
        key=key,
        read=reader.envelopes,
        published=records,
        rejected={},
        blank_lines=reader.blank_lines,
        compressed_bytes=reader.compressed_bytes,
    )


def _publish(
    published: Storage,
    collection: Collection,
    pinned: PinnedInput,
    records: bytes,
    counted: tuple[ObjectCounts, ...],
    correlation_id: str,
) -> IngestReport:
    day = collection.on(pinned.storage_day)
    with published.upload(f"{daily_prefix(day)}part-00000-{correlation_id}.jsonl.gz", group=correlation_id) as upload:
        upload.write(gzip.compress(records))
        part = WrittenPart(prepared=upload.prepare(), lines=records.count(b"\n"), text_bytes=len(records))
    report = IngestReport(
        fingerprint=pinned.fingerprint,
        objects=counted,
        record_bytes=len(records),
        published_bytes=part.prepared.size_bytes,
        parts=1,
        fallback_records=0,
        key_service=KeyServiceCounts(),
        reject_samples=(),
        seconds=0.0,
        published_prefix=None,
        rejects_prefix=None,
    )
    outcome = IngestOutcome(report=report, parts=(part,), rejects=())
    return publish_day(published, day, outcome, correlation_id=correlation_id, seconds=0.1)


def published_records(published: Storage, collection: Collection, storage_day: date) -> "Counter[bytes] | None":
    """Return the published records as a multiset, or None where nothing is published."""
    mark = read_mark(published, collection.on(storage_day))
    if mark is None:
        return None
    lines: Counter[bytes] = Counter()
    for part in mark.parts:
        lines.update(gzip.decompress(published.read(part.key)).splitlines())
    return lines


def report_of(step: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Do a day's step by the arguments of its Spark job, and return its report."""
    published = open_storage(_option(arguments, "--published-root"))
    if step != "ingest_daily":
        return _tables(published, arguments)
    pinned = read_pinned(arguments)
    corporate = open_storage(pinned.corporate_root)
    return ingest_pinned(corporate, published, pinned, _option(arguments, "--correlation-id")).to_json()


def read_pinned(arguments: Sequence[str]) -> PinnedInput:
    """Read the manifest that a job's arguments name."""
    root = _option(arguments, "--published-root")
    manifest = _option(arguments, "--pinned-input").removeprefix(f"{root}/")
    return PinnedInput.from_json(json.loads(open_storage(root).read(manifest)))


def _option(arguments: Sequence[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def _tables(published: Storage, arguments: Sequence[str]) -> dict[str, Any]:
    """Leave the closing report that the real job leaves."""
    collection = find_collection(_option(arguments, "--collection"))
    storage_day, run_id = parse_day(_option(arguments, "--storage-day")), _option(arguments, "--correlation-id")
    day = collection.on(storage_day)
    mark = read_mark(published, day)
    assert mark
    read = read_table_definition(_option(arguments, "--table-definition"))
    report = TablesReport(
        correlation_id=run_id,
        collection_id=collection.id,
        storage_day=storage_day.isoformat(),
        export_day=export_day_of(storage_day).isoformat(),
        fingerprint=mark.fingerprint,
        records=mark.published,
        definition=read.source,
        definition_sha256=read.sha256,
        tables=tuple(
            PublishedTable(kind=table.kind, name=table.name, rows=1, columns=1, seconds=0.1)
            for table in read.named(_option(arguments, "--tables").split(","))
        ),
        seconds=0.1,
        defined=tuple(table.name for table in read.tables),
    ).to_json()
    published.write(tables_report_key(day, run_id), json.dumps(report).encode())
    return report


class QuickLauncher(dg.ConfigurableResource):
    """Stands where the step launcher stands."""

    launches: str
    """File that gets a line for every launch: step, storage day, fingerprint, run id, process id.

    A step goes on once there is no file of its name and `.hold-<step>-<storage day>` (any more), and fails, once, as if
    its cluster were lost where there is one with `.lose-<step>-<storage day>`.
    """

    def launch(self, context: Any, step: SparkStep) -> LaunchEvidence:
        if step.name == "ingest_daily":
            self._at_work(step, read_pinned(step.arguments).fingerprint)
        else:
            self._at_work(step, "-")
        return LaunchEvidence(
            report=report_of(step.name, step.arguments),
            attempts=(LaunchAttempt(where="here", outcome="COMPLETED", seconds=0.1),),
            log_location="/log",
            cluster_id="local",
        )

    def _at_work(self, step: SparkStep, fingerprint: str) -> None:
        with Path(self.launches).open("a") as file:
            file.write(f"{step.name} {step.storage_day} {fingerprint} {step.correlation_id} {os.getpid()}\n")
        while Path(f"{self.launches}.hold-{step.name}-{step.storage_day}").exists():
            time.sleep(0.1)
        lost = Path(f"{self.launches}.lose-{step.name}-{step.storage_day}")
        if lost.exists():
            lost.unlink()
            raise CdiError(FailureClass.CLUSTER_LOST, f"The cluster ended under {step.name}.")
