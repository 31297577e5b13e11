"""Every record is accounted for: read = published + rejected, pinned = read, per object."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.ingest_report import IngestReport, KeyServiceCounts, ObjectCounts, RejectSample, reconcile
from cdi_dagster.core.pinned_input import PinnedInput, PinnedObject

A = "p/data.businessAudit_0_0_9.jsonl.gz"
B = "p/data.businessAudit_0_10-14.jsonl.gz"
PINNED = PinnedInput(
    collection_id="data:businessAudit",
    storage_day=date(2023, 3, 26),
    corporate_root="file:///c",
    fingerprint="f",
    objects=(
        PinnedObject(key=A, size_bytes=100, etag="a", version_id=None),
        PinnedObject(key=B, size_bytes=50, etag="b", version_id=None),
    ),
    left_out=(),
    gaps=(),
)
READ_A = ObjectCounts(key=A, read=10, published=8, rejected={"date": 1, "key": 1}, blank_lines=3, compressed_bytes=100)
READ_B = ObjectCounts(key=B, read=5, published=5, rejected={}, blank_lines=0, compressed_bytes=50)


def test_counts_that_add_up_pass() -> None:
    reconcile(PINNED, [READ_B, READ_A])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: [READ_A], "was pinned but not read"),
        (lambda: [READ_A, READ_B, replace(READ_B, key="p/other.gz")], "was read but not pinned"),
        (lambda: [READ_A, READ_B, READ_B], "was read twice"),
        (lambda: [READ_A, replace(READ_B, compressed_bytes=49)], "has 50 bytes pinned but 49 were read"),
        (lambda: [READ_A, replace(READ_B, published=4)], "gave 5 envelopes but 4 records and 0 rejects"),
        (lambda: [READ_A, replace(READ_B, read=6, published=6)], "states 5 offsets in its name but holds 6"),
        (lambda: [READ_A, replace(READ_B, read=4, published=4)], "states 5 offsets in its name but holds 4"),
    ],
)
def test_whatever_does_not_add_up_is_named(spoil: Callable[[], list[ObjectCounts]], message: str) -> None:
    with pytest.raises(CdiError, match=message) as caught:
        reconcile(PINNED, spoil())
    assert caught.value.failure_class is FailureClass.COUNTS_DO_NOT_RECONCILE


def test_sparse_offsets_allow_fewer_records_but_never_more() -> None:
    reconcile(PINNED, [READ_A, replace(READ_B, read=4, published=4)], allow_sparse_offsets=True)
    with pytest.raises(CdiError, match="holds 6"):
        reconcile(PINNED, [READ_A, replace(READ_B, read=6, published=6)], allow_sparse_offsets=True)


@pytest.mark.parametrize(("read", "fix"), [(4, "allow_sparse_offsets"), (6, "report it as a defect")])
def test_fewer_records_than_offsets_may_be_holes_and_more_are_a_defect(read: int, fix: str) -> None:
    with pytest.raises(CdiError) as caught:
        reconcile(PINNED, [READ_A, replace(READ_B, read=read, published=read)])
    assert fix in caught.value.next_step


def report() -> IngestReport:
    return IngestReport(
        fingerprint="f",
        objects=(READ_A, READ_B),
        record_bytes=1300,
        published_bytes=400,
        parts=2,
        fallback_records=1,
        key_service=KeyServiceCounts(calls=2, cache_hits=13, retries=0, seconds=0.1),
        reject_samples=(RejectSample(reason="date", detail="does not parse", key=A, line_number=4),),
        seconds=1.5,
        published_prefix="x/",
        rejects_prefix="y/",
    )


def test_totals_are_counted_from_the_objects() -> None:
    assert report().totals == {
        "objects": 2,
        "read": 15,
        "published": 13,
        "rejected": 2,
        "rejected_by_reason": {"date": 1, "key": 1},
        "blank_lines": 3,
        "input_bytes": 150,
    }
    assert (report().read, report().published, report().rejected) == (15, 13, 2)


def test_the_report_reads_back_as_it_was_written() -> None:
    assert IngestReport.from_json(json.loads(json.dumps(report().to_json()))) == report()
