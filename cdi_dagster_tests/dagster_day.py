"""One storage day on a real Dagster instance and real storage, with a scripted Spark in place of the real one.

`ScriptedSpark` leaves on storage what the real jobs leave, so that checks, mark and reports are real.
"""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from cdi_dagster.core.alert import Alert
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus
from cdi_dagster.core.ingest_report import IngestReport, KeyServiceCounts, ObjectCounts, RejectSample
from cdi_dagster.core.listing import listing_fingerprint
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.core.storage_keys import daily_prefix, rejects_prefix, tables_report_key
from cdi_dagster.core.tables_report import PublishedTable, TablesReport
from cdi_dagster.definitions import build_definitions
from cdi_dagster.interfaces import LaunchAttempt, LaunchEvidence, SparkStep, StatusRow
from cdi_dagster.published.publish import IngestOutcome, WrittenPart, publish_day
from cdi_dagster.published.read import read_mark
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.settings import Settings, load_settings
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster.storage.roots import Roots
from cdi_dagster.table_definitions import read_table_definition
from cdi_dagster_tests.collections import AUDIT

DAY = date(2023, 3, 26)


@dataclass
class RememberedStatus:
    """A coalescer status that the test sets."""

    corporate: Storage
    state: CoalescerState = CoalescerState.COMPLETE
    reason: str = "coalescer completed at 08:11 UTC"
    by_day: dict[date, CoalescerState] = field(default_factory=dict)
    asked: list[date] = field(default_factory=list)
    on_asked: Callable[[int], None] = lambda times: None

    def status(self, day: CollectionDay) -> CoalescerStatus:
        self.asked.append(day.storage_day)
        self.on_asked(len(self.asked))
        state = self.by_day.get(day.storage_day, self.state)
        listing = self.corporate.list(day.corporate_prefix)
        fingerprint = listing_fingerprint(listing) if state is CoalescerState.COMPLETE else None
        return CoalescerStatus(state=state, reason=self.reason, fingerprint=fingerprint)


@dataclass
class RememberedRows:
    """A status table that keeps every write."""

    writes: list[StatusRow] = field(default_factory=list)

    def put(self, row: StatusRow) -> None:
        self.writes.append(row)

    def get(self, correlation_id: str, data_product: str) -> StatusRow | None:
        found = [r for r in self.writes if (r.correlation_id, r.data_product) == (correlation_id, data_product)]
        return found[-1] if found else None

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(row.current_step, row.status) for row in self.writes]


@dataclass
class RememberedAlerts:
    """Keeps every alert; refuses them where the test says so."""

    sent: list[Alert] = field(default_factory=list)
    refuse: bool = False

    def send(self, alert: Alert) -> None:
        if self.refuse:
            raise ConnectionError("no route")
        self.sent.append(alert)

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(alert.kind, str(day)) for alert in self.sent for day in alert.storage_days]


@dataclass
class ScriptedSpark:
    """Stands where the step launcher stands; publishes what was pinned, or fails as told."""

    published: Storage
    rejected: int = 0
    failure: CdiError | BaseException | None = None
    failure_of: dict[str, CdiError] = field(default_factory=dict)
    keep_rejects: bool = True
    unreported_tables: tuple[str, ...] = ()
    launched: list[SparkStep] = field(default_factory=list)

    def launch(self, context: Any, step: SparkStep) -> LaunchEvidence:
        self.launched.append(step)
        if failure := self.failure or self.failure_of.get(step.name):
            raise failure
        report = self._ingest(step) if step.name == "ingest_daily" else self._tables(step)
        return LaunchEvidence(
            report=report,
            attempts=(LaunchAttempt(where="scripted", outcome="COMPLETED", seconds=2.0),),
            log_location="/log",
            cluster_id="local",
        )

    def _ingest(self, step: SparkStep) -> Mapping[str, Any]:
        root, _, name = argument(step, "--pinned-input").rpartition("/")
        pinned = PinnedInput.from_json(json.loads(open_storage(root).read(name)))
        objects = tuple(
            _counts(entry.key, entry.size_bytes, entry.name.offset_count, self.rejected if n == 0 else 0)
            for n, entry in enumerate(pinned.objects)
        )
        published = sum(counts.published for counts in objects)
        day = step.collection.on(step.storage_day)
        folder = "id_part=0a/" if day.collection.is_keyed else ""
        part = self._prepare(step, f"{daily_prefix(day)}{folder}", gzip.compress(b'{"a":1}\n' * published), published)
        rejects: tuple[WrittenPart, ...] = ()
        if self.rejected and self.keep_rejects:
            rejects = (self._prepare(step, rejects_prefix(day, step.correlation_id), b"rejects", self.rejected),)
        report = IngestReport(
            fingerprint=pinned.fingerprint,
            objects=objects,
            record_bytes=8 * published,
            published_bytes=part.prepared.size_bytes,
            parts=1,
            fallback_records=0,
            key_service=KeyServiceCounts(calls=3, cache_hits=97),
            reject_samples=tuple(
                RejectSample(reason="date", detail="does not parse", key=objects[0].key, line_number=n)
                for n in range(1, self.rejected + 1)
            ),
            seconds=0.0,
            published_prefix=None,
            rejects_prefix=None,
            db_types={"INSERT": published - 1, "DELETE": 1} if day.collection.is_keyed else None,
        )
        outcome = IngestOutcome(report=report, parts=(part,), rejects=rejects)
        published_report = publish_day(self.published, day, outcome, correlation_id=step.correlation_id, seconds=2.0)
        return published_report.to_json()

    def _prepare(self, step: SparkStep, prefix: str, content: bytes, lines: int) -> WrittenPart:
        key = f"{prefix}part-00000-{step.correlation_id}.jsonl.gz"
        with self.published.upload(key, group=step.correlation_id) as upload:
            upload.write(content)
            return WrittenPart(prepared=upload.prepare(), lines=lines, text_bytes=0)

    def _tables(self, step: SparkStep) -> Mapping[str, Any]:
        definition = read_table_definition(argument(step, "--table-definition"))
        day = step.collection.on(step.storage_day)
        mark = read_mark(self.published, day)
        assert mark is not None
        report = TablesReport(
            correlation_id=step.correlation_id,
            collection_id=step.collection.id,
            storage_day=step.storage_day.isoformat(),
            export_day=export_day_of(step.storage_day).isoformat(),
            fingerprint=mark.fingerprint,
            records=mark.published,
            definition=definition.source,
            definition_sha256=definition.sha256,
            tables=tuple(
                PublishedTable(kind=table.kind, name=table.name, rows=10, columns=3, seconds=1.0)
                for table in definition.named(argument(step, "--tables").split(","))
                if table.short_name not in self.unreported_tables
            ),
            seconds=3.0,
            defined=tuple(table.name for table in definition.tables),
        ).to_json()
        self.published.write(tables_report_key(day, step.correlation_id), json.dumps(report).encode())
        return report


def _counts(key: str, size: int, read: int, rejected: int) -> ObjectCounts:
    return ObjectCounts(
        key=key,
        read=read,
        published=read - rejected,
        rejected={"date": rejected} if rejected else {},
        blank_lines=0,
        compressed_bytes=size,
    )


def argument(step: SparkStep, name: str) -> str:
    """Return the value of one of a step's arguments."""
    return step.arguments[step.arguments.index(name) + 1]


class DagsterDay:
    """Storage, scripted Spark, status table and a Dagster instance, all below one folder."""

    def __init__(self, home: Path, instance: dg.DagsterInstance, **settings: Any) -> None:
        self.settings: Settings = load_settings(home=home, **settings)
        self.instance = instance
        self.corporate = open_storage(self.settings.corporate_root)
        self.published = open_storage(self.settings.published_root)
        self.status = RememberedStatus(self.corporate)
        self.rows = RememberedRows()
        self.alerts = RememberedAlerts()
        self.spark = ScriptedSpark(self.published)
        self.slept: list[float] = []  # instead of waiting for a closed gate
        self.definitions = build_definitions(
            settings=self.settings, resource_overrides=self.resources, sleep=self.slept.append
        )

    @property
    def resources(self) -> dict[str, Any]:
        return {
            "coalescer_status": self.status,
            "step_launcher": self.spark,
            "status_table": self.rows,
            "alerts": self.alerts,
        }

    def use(self, **resources: Any) -> None:
        """Put other resources in the place of the scripted ones."""
        self.definitions = build_definitions(
            settings=self.settings, resource_overrides=self.resources | resources, sleep=self.slept.append
        )

    @property
    def instigator_resources(self) -> dict[str, Any]:
        """What a schedule or sensor gets."""
        return {
            "coalescer_status": self.status,
            "roots": Roots(corporate=self.corporate, published=self.published),
            "alerts": self.alerts,
            "status_table": self.rows,
            "options": IngestOptions(
                dks_url=self.settings.dks_url, runbook_url="https://runbook", alert_on=self.settings.alert_on
            ),
        }

    def put_object(
        self,
        offsets: str,
        *,
        storage_day: date = DAY,
        partition: int = 0,
        content: bytes = b"x",
        of: Collection = AUDIT,
    ) -> str:
        """Store an object named by its offsets: `0-9` is a raw one, `0_9` a coalesced one."""
        key = f"{of.on(storage_day).corporate_prefix}{of.topic}_{partition}_{offsets}.jsonl.gz"
        self.corporate.write(key, content)
        return key

    def run(
        self,
        *assets: str,
        storage_day: date = DAY,
        config: Mapping[str, Any] | None = None,
        collection: Collection = AUDIT,
        tags: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run the daily job, or only the named assets of it; config is by asset."""
        ops = {key.replace("/", "__"): {"config": dict(value)} for key, value in (config or {}).items()}
        return self.definitions.resolve_job_def(f"{collection.asset_name}_daily").execute_in_process(
            partition_key=storage_day.isoformat(),
            instance=self.instance,
            raise_on_error=False,
            run_config={"ops": ops},
            asset_selection=[dg.AssetKey.from_user_string(name) for name in assets] or None,
            tags=dict(tags or {}),
        )


@contextmanager
def dagster_day(home: Path, **settings: Any) -> Iterator["DagsterDay"]:
    """Yield a day on an instance that ends with the test."""
    with dg.DagsterInstance.ephemeral(tempdir=str(home)) as instance:
        yield DagsterDay(home, instance, **settings)


def failure_of(result: dg.ExecuteInProcessResult) -> Mapping[str, Any]:
    """Return the metadata of the run's one step failure, as plain values."""
    failures = [event for event in result.all_events if event.is_step_failure]
    assert len(failures) == 1, failures
    data = failures[0].step_failure_data
    assert data.user_failure_data, data.error
    return {name: value.value for name, value in data.user_failure_data.metadata.items()}


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> Mapping[str, Any]:
    """Return the metadata of an asset's materialisation, as plain values."""
    key = dg.AssetKey.from_user_string(asset)
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == key]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def checks_of(result: dg.ExecuteInProcessResult) -> Mapping[str, dg.AssetCheckEvaluation]:
    """Return the check evaluations of a run by name."""
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
