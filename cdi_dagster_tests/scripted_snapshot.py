"""A scripted Spark that publishes snapshots as `build_snapshot` does, of days whose marks alone are there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.days import storage_days_between
from cdi_dagster.core.snapshot_report import SnapshotReport
from cdi_dagster.core.storage_keys import SUCCESS_MARK, daily_rows_prefix, tables_report_key
from cdi_dagster.core.tables_report import PublishedTable, TablesReport
from cdi_dagster.interfaces import LaunchAttempt, LaunchEvidence, SparkStep
from cdi_dagster.published.mark import Mark
from cdi_dagster.published.snapshot_mark import SnapshotMark
from cdi_dagster.published.snapshots import input_now, publish_snapshot, require_snapshot, snapshot_of
from cdi_dagster.storage import Storage
from cdi_dagster.table_definitions import read_table_definition
from cdi_dagster_tests.dagster_day import ScriptedSpark, argument

PARTS = find_collection("calculator:calculationParts")


@dataclass
class ScriptedSnapshots(ScriptedSpark):
    """Stands where the step launcher stands."""

    stale_later: tuple[str, ...] = ()
    id_parts: Mapping[str, int] = field(default_factory=lambda: {"0a": 5})
    modified: Mapping[date, int] = field(default_factory=dict)
    attempt: LaunchAttempt = LaunchAttempt(where="scripted", outcome="COMPLETED", seconds=2.0)

    def launch(self, context: Any, step: SparkStep) -> LaunchEvidence:
        self.launched.append(step)
        if self.failure:
            raise self.failure
        return LaunchEvidence(
            report=self._snapshot(step) if step.name == "build_snapshot" else self._tables(step),
            attempts=(self.attempt,),
            log_location="/log",
            cluster_id="local",
        )

    def _tables(self, step: SparkStep) -> Mapping[str, Any]:
        definition = read_table_definition(argument(step, "--table-definition"))
        day = step.collection.on(step.storage_day)
        mark = require_snapshot(self.published, day)
        report = TablesReport(
            correlation_id=step.correlation_id,
            collection_id=step.collection.id,
            storage_day=str(day.storage_day),
            export_day=str(day.export_day),
            fingerprint=mark.fingerprint,
            records=mark.published,
            definition=definition.source,
            definition_sha256=definition.sha256,
            tables=tuple(
                PublishedTable(kind="snapshot", name=table.name, rows=mark.published, columns=3, seconds=1.0)
                for table in definition.named(argument(step, "--tables").split(","))
            ),
            seconds=3.0,
            defined=tuple(table.name for table in definition.tables),
        ).to_json()
        self.published.write(tables_report_key(day, step.correlation_id), json.dumps(report).encode())
        return report

    def _snapshot(self, step: SparkStep) -> Mapping[str, Any]:
        export_day = date.fromisoformat(argument(step, "--export-day"))
        first = date.fromisoformat(argument(step, "--first-storage-day"))
        mark = make_snapshot(
            self.published,
            export_day,
            first_storage_day=first,
            correlation_id=step.correlation_id,
            id_parts=self.id_parts,
            modified=self.modified or {step.storage_day: 5},
        )
        used = mark.made_from
        assert used is not None
        return SnapshotReport(
            correlation_id=step.correlation_id,
            collection_id=step.collection.id,
            export_day=str(export_day),
            fingerprint=mark.fingerprint,
            base=str(used.base.export_day) if used.base else None,
            days=tuple(map(str, used.days)),
            rows_in=mark.rows_in,
            rows=mark.rows,
            id_parts=1,
            files=1,
            stored_bytes=100,
            stale_later=self.stale_later,
            seconds=2.0,
        ).to_json()


def make_snapshot(
    published: Storage,
    export_day: date,
    *,
    first_storage_day: date,
    correlation_id: str = "snapshot",
    id_parts: Mapping[str, int] | None = None,
    modified: Mapping[date, int] | None = None,
) -> SnapshotMark:
    """Publish the mark of a snapshot, from what is published now."""
    used, _ = input_now(published, PARTS, export_day, first_storage_day=first_storage_day)
    mark = SnapshotMark(
        correlation_id=correlation_id,
        collection_id=PARTS.id,
        export_day=export_day,
        fingerprint=used.fingerprint,
        made_from=used,
        rows_in={"DELETE": 2, "INSERT": 5},
        rows={"DELETE": 2, "INSERT": 3},
        id_parts=id_parts or {},
        parts=(),
        published_at=datetime(2023, 6, 9, 10, tzinfo=UTC),
        sampled_rows=5,
        modified=modified or {},
    )
    publish_snapshot(published, snapshot_of(PARTS, export_day), (), mark)
    return mark


def publish_days(published: Storage, first: date, last: date, *, fingerprint: str = "f1", rows: int = 3) -> None:
    """Publish the marks of days."""
    for storage_day in storage_days_between(first, last):
        mark = Mark(
            fingerprint=fingerprint,
            correlation_id="rows",
            collection_id=PARTS.id,
            storage_day=storage_day,
            published=rows,
            rejected=0,
            record_bytes=0,
            published_bytes=10,
            parts=(),
            published_at=datetime(2023, 6, 9, 9, 40, tzinfo=UTC),
        )
        published.write(f"{daily_rows_prefix(PARTS.on(storage_day))}{SUCCESS_MARK}", mark.to_bytes())
