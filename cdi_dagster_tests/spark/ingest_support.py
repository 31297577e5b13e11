"""One storage day to ingest in a test: roots, sample, pinned input, the job run in this process's Spark."""

import gzip
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeAlias

import pyarrow as pa
from pyarrow import orc
from pyspark import SparkContext

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.ingest_report import IngestReport
from cdi_dagster.core.storage_keys import daily_prefix, id_part_folder, pinned_input_key, rejects_prefix, run_prefix
from cdi_dagster.demo.sample import SampleSummary, write_sample
from cdi_dagster.ingestion.pinning import pin_storage_day
from cdi_dagster.spark.ingest.arguments import parse_arguments
from cdi_dagster.spark.ingest.job import IngestDaily
from cdi_dagster.spark.reporting import Reporter
from cdi_dagster.storage import Storage
from cdi_dagster.storage.roots import Roots
from cdi_dagster_tests.collections import AUDIT

DAY = date(2023, 3, 26)
Row: TypeAlias = tuple[str, str, str, int, int]
ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("db_type", pa.string()),
        ("val", pa.string()),
        ("kafka_partition", pa.int32()),
        ("kafka_offset", pa.int64()),
    ]
)


class RecordingReporter(Reporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[dict[str, Any]] = []

    def _send(self, message: dict[str, Any]) -> None:
        self.said.append(message)


@dataclass
class SampleDay:
    """A storage day of encrypted raw objects, and everything that a run of it leaves."""

    corporate: Storage
    published: Storage
    dks_url: str
    collection: Collection = AUDIT
    storage_day: date = DAY
    reporter: RecordingReporter = field(default_factory=RecordingReporter)

    def write(self, records: int = 300, objects: int = 5, **options: Any) -> SampleSummary:
        seed = options.pop("seed", 1)
        return write_sample(
            self.corporate, self.collection.on(self.storage_day), records=records, objects=objects, seed=seed, **options
        )

    def pin(self, **options: Any) -> None:
        pin_storage_day(
            Roots(corporate=self.corporate, published=self.published), self.collection.on(self.storage_day), **options
        )

    def arguments(self, *more: str, correlation_id: str = "run-1") -> list[str]:
        return [
            "--pinned-input",
            self.published.uri(pinned_input_key(self.collection.on(self.storage_day))),
            "--published-root",
            self.published.root,
            "--correlation-id",
            correlation_id,
            "--dks-url",
            self.dks_url,
            "--dks-retry-budget-seconds",
            "1",
            *more,
        ]

    def ingest(self, spark: SparkContext, *more: str, correlation_id: str = "run-1") -> IngestReport:
        arguments = parse_arguments(self.arguments(*more, correlation_id=correlation_id))
        return IngestDaily(arguments, self.reporter).run(spark)

    @property
    def records_prefix(self) -> str:
        return daily_prefix(self.collection.on(self.storage_day))

    def published_keys(self) -> list[str]:
        return [stored.key.removeprefix(self.records_prefix) for stored in self.published.list(self.records_prefix)]

    def mark(self) -> dict[str, Any] | None:
        key = f"{self.records_prefix}_SUCCESS"
        return json.loads(self.published.read(key)) if self.published.head(key) else None

    def records(self) -> "Counter[bytes]":
        """The published records, as a multiset; they must be exactly what the mark says."""
        mark = self.mark()
        if mark is None:
            assert self.published_keys() == []
            return Counter()
        assert self.published_keys() == [
            "_SUCCESS",
            *(part["key"].removeprefix(self.records_prefix) for part in mark["parts"]),
        ]
        found: Counter[bytes] = Counter()
        for part in mark["parts"]:
            lines = gzip.decompress(self.published.read(part["key"])).splitlines()
            assert len(lines) == part["records"]
            found.update(lines)
        assert found.total() == mark["published"]
        return found

    def rows(self) -> "Counter[Row]":
        """The published rows of a keyed collection, as a multiset; they must be exactly what the mark says."""
        mark = self.mark()
        if mark is None:
            assert self.published_keys() == []
            return Counter()
        parts = {part["key"].removeprefix(self.records_prefix): part for part in mark["parts"]}
        assert self.published_keys() == sorted(["_SUCCESS", *parts])
        found: Counter[Row] = Counter()
        for name, part in parts.items():
            table = orc.ORCFile(io.BytesIO(self.published.read(part["key"]))).read()
            assert table.schema == ROW_SCHEMA
            rows = [tuple(row.values()) for row in table.to_pylist()]
            assert len(rows) == part["records"]
            assert rows == sorted(rows, key=lambda row: (row[0], *row[3:]))
            assert {id_part_folder(json.loads(row[0])["id"][:2]) for row in rows} == {f"{name.partition('/')[0]}/"}
            found.update(rows)
        assert found.total() == mark["published"]
        assert Counter(row[1] for row in found.elements()) == Counter(mark["db_types"])
        return found

    def rejects(self, correlation_id: str = "run-1") -> list[dict[str, Any]]:
        prefix = rejects_prefix(self.collection.on(self.storage_day), correlation_id)
        return [
            json.loads(line)
            for stored in self.published.list(prefix)
            if not stored.key.endswith("_SUCCESS")
            for line in gzip.decompress(self.published.read(stored.key)).splitlines()
        ]

    def left_by_run(self, name: str, correlation_id: str = "run-1") -> dict[str, Any] | None:
        key = f"{run_prefix(self.collection.on(self.storage_day), correlation_id)}{name}"
        return json.loads(self.published.read(key)) if self.published.head(key) else None

    def failure_left(self, correlation_id: str = "run-1") -> CdiError:
        left = self.left_by_run("failure.json", correlation_id)
        assert left is not None
        return CdiError.from_json(left)
