"""The Spark steps of a day: what their arguments state, and what their closing report must name."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.key_service_access import KeyServiceAccess
from cdi_dagster.core.pinned_input import PinnedInput, PinnedObject
from cdi_dagster.core.storage_keys import mark_key, pinned_input_history_key
from cdi_dagster.core.tables_report import PublishedTable, TablesReport
from cdi_dagster.ingestion.steps import ingest_step, tables_of, tables_step
from cdi_dagster.published.mark import Mark
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.collections import AUDIT, CLAIMANT

DAY = AUDIT.on(date(2023, 3, 26))
assert AUDIT.tables is not None
TABLES = list(AUDIT.tables.tables)
KEYS = KeyServiceAccess(url="http://127.0.0.1:1")


def pinned(*sizes: int) -> PinnedInput:
    objects = tuple(
        PinnedObject(
            key=f"{DAY.corporate_prefix}{AUDIT.topic}_0_{n}0_{n}9.jsonl.gz", size_bytes=size, etag="e", version_id=None
        )
        for n, size in enumerate(sizes)
    )
    return PinnedInput(
        collection_id=AUDIT.id,
        storage_day=DAY.storage_day,
        corporate_root="file:///corporate",
        fingerprint="f" * 64,
        objects=objects,
        left_out=(),
        gaps=(),
    )


@pytest.fixture
def published(tmp_path: Path) -> Storage:
    return open_storage(tmp_path.as_uri())


def argument(step: Any, name: str) -> str:
    return str(step.arguments[step.arguments.index(name) + 1])


def ingest(published: Storage, *sizes: int, **options: Any) -> Any:
    return ingest_step(
        DAY, pinned(*sizes), published, correlation_id="run-1", key_service=KEYS, max_rejected="5%", **options
    )


def test_an_ingestion_reads_the_kept_copy_of_the_manifest_and_is_sized_by_its_bytes(published: Storage) -> None:
    step = ingest(published, 100, 50)
    assert argument(step, "--pinned-input") == published.uri(pinned_input_history_key(DAY, "f" * 64))
    assert argument(step, "--published-root") == published.root
    assert (argument(step, "--correlation-id"), step.correlation_id) == ("run-1", "run-1")
    assert argument(step, "--max-rejected") == "5%"
    assert set(KEYS.arguments()) <= set(step.arguments)
    assert (step.name, step.input_bytes, step.storage_day) == ("ingest_daily", 150, DAY.storage_day)


def test_what_is_allowed_is_stated_only_where_it_is(published: Storage) -> None:
    allowances = {"--allow-sparse-offsets", "--allow-empty"}
    assert not allowances & set(ingest(published, 1).arguments)
    assert allowances & set(ingest(published, 1, allow_sparse_offsets=True).arguments) == {"--allow-sparse-offsets"}
    # An empty day was allowed when it was pinned.
    assert allowances & set(ingest(published).arguments) == {"--allow-empty"}


def publish_mark(published: Storage) -> None:
    mark = Mark(
        fingerprint="f" * 64,
        correlation_id="run-1",
        collection_id=AUDIT.id,
        storage_day=DAY.storage_day,
        published=1,
        rejected=0,
        record_bytes=10,
        published_bytes=7,
        parts=(),
        published_at=datetime(2023, 3, 27, tzinfo=UTC),
    )
    published.write(mark_key(DAY), mark.to_bytes())


def test_tables_need_the_days_records(published: Storage) -> None:
    with pytest.raises(CdiError, match="There are no daily records") as caught:
        tables_step(DAY, published, correlation_id="run-1")
    assert caught.value.failure_class is FailureClass.INPUT_INVALID


def test_a_collection_without_tables_is_refused(published: Storage) -> None:
    with pytest.raises(CdiError, match="No tables are defined for core:claimant"):
        tables_step(CLAIMANT.on(DAY.storage_day), published, correlation_id="run-1")


def test_all_tables_are_published_or_those_that_are_named(published: Storage) -> None:
    publish_mark(published)
    step = tables_step(DAY, published, correlation_id="run-1")
    assert argument(step, "--tables").split(",") == [table.short_name for table in TABLES]
    assert argument(step, "--table-definition")
    assert (step.name, step.input_bytes) == ("publish_tables", 7)
    one = tables_step(DAY, published, correlation_id="run-1", tables=TABLES[:1])
    assert argument(one, "--tables") == TABLES[0].short_name


def test_a_report_that_leaves_out_a_table_is_no_success(published: Storage) -> None:
    publish_mark(published)
    raw, managed = TABLES[:2]
    step = tables_step(DAY, published, correlation_id="run-1", tables=[raw, managed])
    assert [table.name for table in tables_of(step, report(raw.name, managed.name)).tables] == [raw.name, managed.name]
    with pytest.raises(CdiError, match=f"does not name these tables: .*{managed.short_name}") as caught:
        tables_of(step, report(raw.name))
    assert caught.value.failure_class is FailureClass.COUNTS_DO_NOT_RECONCILE


def report(*names: str) -> dict[str, Any]:
    return TablesReport(
        correlation_id="run-1",
        collection_id=AUDIT.id,
        storage_day="2023-03-26",
        export_day="2023-03-27",
        fingerprint="f" * 64,
        records=1,
        definition="business_audit.json (shipped)",
        definition_sha256="a" * 64,
        tables=tuple(PublishedTable(kind="table", name=name, rows=1, columns=1, seconds=0.1) for name in names),
        seconds=0.2,
    ).to_json()
