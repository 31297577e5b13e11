"""Which tables show a day's records: by the closing reports, of this version and of earlier ones."""

import json
import os
from datetime import UTC, date, datetime

import pytest

from cdi_dagster.core.storage_keys import mark_key, rejects_prefix, tables_report_key
from cdi_dagster.core.tables_report import PublishedTable, TablesReport
from cdi_dagster.published.mark import Mark
from cdi_dagster.published.snapshots import snapshot_of
from cdi_dagster.published.tables import is_whole, missing_tables, shown_tables
from cdi_dagster.storage import open_storage
from cdi_dagster.table_definitions import with_tables
from cdi_dagster_tests.collections import AUDIT, CLAIMANT
from cdi_dagster_tests.scripted_snapshot import PARTS, make_snapshot, publish_days

DAY = AUDIT.on(date(2023, 3, 26))
NAMES = RAW, MANAGED, SECURED, REDACTED = AUDIT.table_names
PARTS_TABLES = with_tables(PARTS, {}).snapshot_table_names
FRIDAY, NEXT_FRIDAY = date(2023, 6, 9), date(2023, 6, 16)


class Published:
    """A day's mark and its runs' reports, each written later than the one before."""

    def __init__(self, folder):
        self.folder = folder
        self.storage = open_storage(folder.as_uri())
        self.runs = 0
        self.mark = self.records("f1")

    def records(self, fingerprint, *, records=10):
        self.mark = Mark(
            fingerprint=fingerprint,
            correlation_id="r",
            collection_id=DAY.collection.id,
            storage_day=DAY.storage_day,
            published=records,
            rejected=0,
            record_bytes=0,
            published_bytes=0,
            parts=(),
            published_at=datetime(2023, 3, 27, tzinfo=UTC),
        )
        self.storage.write(mark_key(DAY), self.mark.to_bytes())
        return self.mark

    def tables(self, *names, fingerprint="f1", records=10, defined=NAMES, sha256="a", drop=(), renamed=None):
        self.runs += 1
        report = TablesReport(
            correlation_id=f"r{self.runs}",
            collection_id=DAY.collection.id,
            storage_day=str(DAY.storage_day),
            export_day=str(DAY.export_day),
            fingerprint=fingerprint,
            records=records,
            definition="audit.json",
            definition_sha256=sha256,
            tables=tuple(PublishedTable(kind="table", name=name, rows=1, columns=1, seconds=1.0) for name in names),
            seconds=1.0,
            defined=defined,
        )
        value = {(renamed or {}).get(name, name): part for name, part in report.to_json().items() if name not in drop}
        self.write(json.dumps(value).encode())

    def write(self, content):
        # A later run has an earlier name: the order is that of time.
        key = tables_report_key(DAY, f"{100 - self.runs}")
        self.storage.write(key, content)
        os.utime(self.folder / key, (self.runs, self.runs))

    @property
    def missing(self):
        return missing_tables(self.storage, DAY, self.mark)


@pytest.fixture
def published(tmp_path):
    return Published(tmp_path)


def test_without_a_report_every_table_is_missing(published):
    assert published.missing == NAMES
    assert not is_whole(published.storage, DAY)


def test_tables_of_these_records_are_there(published):
    published.tables(*NAMES)
    assert published.missing == ()
    assert is_whole(published.storage, DAY)


def test_a_day_without_records_is_not_whole_whatever_was_reported(published):
    published.tables(*NAMES)
    published.storage.delete([mark_key(DAY)])
    assert not is_whole(published.storage, DAY)


def test_a_collection_without_tables_is_whole_with_its_records(published):
    claimant = CLAIMANT.on(DAY.storage_day)
    assert missing_tables(published.storage, claimant, published.mark) == ()


def test_runs_of_some_tables_add_up(published):
    published.tables(RAW, MANAGED)
    assert published.missing == (SECURED, REDACTED)
    published.tables(SECURED)
    published.tables(REDACTED)
    assert published.missing == ()


def test_a_day_that_was_ingested_again_needs_its_tables_again_and_each_of_them(published):
    published.tables(*NAMES)
    published.records("f2")
    assert published.missing == NAMES
    published.tables(SECURED, REDACTED, fingerprint="f2")
    assert published.missing == (RAW, MANAGED)


def test_a_replay_of_rejects_needs_its_tables_again_though_its_input_is_the_same(published):
    published.tables(*NAMES)
    published.records("f1", records=12)
    assert published.missing == NAMES
    published.tables(*NAMES, records=12)
    assert published.missing == ()


def test_a_day_that_comes_back_to_what_it_was_needs_its_tables_again(published):
    published.tables(*NAMES)
    published.tables(*NAMES, fingerprint="f2")
    assert published.missing == NAMES


def test_what_an_earlier_version_published_is_known_by_its_report(published):
    published.tables(*NAMES, drop=("defined",), renamed={"definition": "table_config"})
    assert published.missing == ()
    published.records("f2")
    assert published.missing == NAMES


def test_the_report_of_a_later_version_is_known_too(published):
    published.tables(*NAMES)
    key = tables_report_key(DAY, "99")
    report = json.loads(published.storage.read(key))
    published.storage.write(key, json.dumps(report | {"later": 1, "tables": [{"name": RAW}]}).encode())
    assert published.missing == NAMES
    tables = [{**table, "later": 1} for table in report["tables"]]
    published.storage.write(key, json.dumps(report | {"later": 1, "tables": tables}).encode())
    assert published.missing == ()


def test_another_definition_alone_reopens_no_day_and_a_day_is_judged_by_its_own(published):
    published.tables(RAW, MANAGED, defined=(RAW, MANAGED), sha256="b")
    assert published.missing == ()
    published.tables(RAW, defined=(RAW, "extra"), sha256="c")
    assert published.missing == ("extra",)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"tables": [1]}', b"\xff"])
def test_what_is_no_report_proves_nothing_and_hides_nothing(published, content):
    published.write(content)
    assert published.missing == NAMES
    published.runs += 1
    published.tables(*NAMES)
    published.runs += 1
    published.write(content)
    assert published.missing == ()


def test_it_reads_one_report_of_many(published, monkeypatch):
    for _ in range(5):
        published.tables(*NAMES)
    published.storage.write(f"{rejects_prefix(DAY, 'r1')}part-0.jsonl.gz", b"x")
    read, keys = published.storage.read, []
    monkeypatch.setattr(published.storage, "read", lambda key: keys.append(key) or read(key))
    assert published.missing == ()
    assert len(keys) == 1


def test_the_tables_that_are_shown_are_those_last_made_from_these_records(published):
    assert shown_tables(published.storage, DAY) == ()
    published.tables(*NAMES)
    published.tables(MANAGED)
    assert {table.name for table in shown_tables(published.storage, DAY)} == set(NAMES)
    published.records("f2")
    assert shown_tables(published.storage, DAY) == ()
    published.tables(RAW, fingerprint="f2")
    assert [table.name for table in shown_tables(published.storage, DAY)] == [RAW]
    published.storage.delete([mark_key(DAY)])
    assert shown_tables(published.storage, DAY) == ()


def snapshot_report(storage, folder, mark, *names, at):
    day = snapshot_of(PARTS, mark.export_day)
    report = TablesReport(
        correlation_id=f"r{at}",
        collection_id=PARTS.id,
        storage_day=str(day.storage_day),
        export_day=str(day.export_day),
        fingerprint=mark.fingerprint,
        records=mark.published,
        definition="parts.json",
        definition_sha256="a",
        tables=tuple(PublishedTable(kind="snapshot", name=name, rows=1, columns=1, seconds=1.0) for name in names),
        seconds=1.0,
        defined=PARTS_TABLES,
    )
    key = tables_report_key(day, report.correlation_id)
    storage.write(key, json.dumps(report.to_json()).encode())
    os.utime(folder / key, (at, at))


def test_a_table_of_snapshots_shows_the_one_that_was_published_to_it_last_of_whichever_friday(tmp_path):
    storage = open_storage(tmp_path.as_uri())
    publish_days(storage, date(2023, 6, 2), date(2023, 6, 15))
    older, newer = (make_snapshot(storage, day, first_storage_day=date(2023, 6, 2)) for day in (FRIDAY, NEXT_FRIDAY))
    one, other, _ = PARTS_TABLES

    def missing():
        return missing_tables(storage, with_tables(PARTS, {}).on(date(2023, 6, 15)), newer)

    snapshot_report(storage, tmp_path, older, *PARTS_TABLES, at=1)
    assert missing() == PARTS_TABLES
    snapshot_report(storage, tmp_path, newer, *PARTS_TABLES, at=2)
    assert missing() == ()
    snapshot_report(storage, tmp_path, older, one, at=3)
    assert missing() == (one,)
    snapshot_report(storage, tmp_path, newer, one, at=4)
    snapshot_report(storage, tmp_path, older, other, at=5)
    assert missing() == (other,)
