"""Days whose jobs AWS Batch has forgotten: judged by the kept proof of their completion, and by their objects."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from cdi_dagster.coalescer_status.batch_jobs import BATCH_REMEMBERS
from cdi_dagster.coalescer_status.batch_proof import CompletionProof, forgotten_day_status
from cdi_dagster.coalescer_status.batch_status import BatchCoalescerStatus
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.core.launch_decision import launch_of
from cdi_dagster.core.listing import StoredObject, listing_fingerprint
from cdi_dagster.core.storage_keys import completion_proof_key
from cdi_dagster.storage import Roots, open_storage
from cdi_dagster_tests.clock import clock_at
from cdi_dagster_tests.coalescer_status.test_batch_status import (  # noqa: F401
    REGION,
    Batch,
    batch,
    mid_morning,
    roots,
    yesterday,
)
from cdi_dagster_tests.collections import AUDIT

DAY = AUDIT.on(date(2023, 3, 26))
NIGHT = datetime(2023, 3, 27, 1, 0, tzinfo=UTC)
NOW = NIGHT + BATCH_REMEMBERS + timedelta(seconds=1)


def stored(offsets: str, *, modified_at: datetime = NIGHT, etag: str = "a") -> StoredObject:
    key = f"{DAY.corporate_prefix}{AUDIT.topic}_0_{offsets}.jsonl.gz"
    return StoredObject(key=key, size_bytes=9, etag=etag, version_id=None, modified_at=modified_at)


COALESCED = [stored("0_9"), stored("10_19")]
RAW = [stored("0_9"), stored("10-19")]
REWRITTEN = [stored("0_9"), stored("10_19", etag="b")]


def proof_of(listing: list[StoredObject]) -> CompletionProof:
    return CompletionProof(completed_at=NIGHT, fingerprint=listing_fingerprint(listing))


@pytest.mark.parametrize(
    ("proof", "listing", "expected", "reason"),
    [
        (proof_of(COALESCED), COALESCED, CoalescerState.COMPLETE, "was complete at 2023-03-27 01:00 UTC"),
        (proof_of(RAW), RAW, CoalescerState.COMPLETE, "has not changed"),
        (proof_of([]), [], CoalescerState.COMPLETE, "has not changed"),
        (proof_of(COALESCED), REWRITTEN, CoalescerState.COMPLETE, "changed since; all its 2 objects are coalesced"),
        (proof_of(COALESCED), RAW, CoalescerState.NOT_STARTED, "10-19.jsonl.gz is not coalesced"),
        (None, COALESCED, CoalescerState.COMPLETE, "all its 2 objects are coalesced"),
        (None, RAW, CoalescerState.NOT_STARTED, "10-19.jsonl.gz is not coalesced"),
        (None, [*COALESCED, stored("no offsets")], CoalescerState.NOT_STARTED, "is not coalesced"),
        (None, [], CoalescerState.NOT_STARTED, "has no objects"),
        (
            None,
            [stored("0_9"), stored("10_19", modified_at=NOW - BATCH_REMEMBERS)],
            CoalescerState.NOT_STARTED,
            "by no job",
        ),
    ],
)
def test_a_forgotten_day_is_complete_by_its_proof_or_by_old_coalesced_objects(
    proof: CompletionProof | None, listing: list[StoredObject], expected: CoalescerState, reason: str
) -> None:
    status = forgotten_day_status(DAY.storage_day, proof, listing, now=NOW)
    assert (status.state, str(DAY.storage_day) in status.reason) == (expected, True)
    assert reason in status.reason


def test_a_day_without_proof_is_read_only_up_to_its_first_raw_object() -> None:
    def listing() -> Iterator[StoredObject]:
        yield stored("0-9")
        raise AssertionError("read on")

    assert not forgotten_day_status(DAY.storage_day, None, listing(), now=NOW).is_open


def test_a_proof_is_read_as_it_was_kept_and_anything_else_is_none() -> None:
    proof = proof_of(COALESCED)
    assert CompletionProof.from_bytes(proof.to_bytes()) == proof
    for content in (b"", b"[]", b"{}", b"\xff", proof.to_bytes().replace(b"COMPLETE", b"RUNNING")):
        assert CompletionProof.from_bytes(content) is None


def in_eight_days() -> datetime:
    return datetime.now(UTC) + timedelta(days=8)


def test_a_completion_outlasts_batch_s_memory(batch: Batch, roots: Roots) -> None:  # noqa: F811
    day = AUDIT.on(yesterday())
    roots.corporate.write(f"{day.corporate_prefix}{AUDIT.topic}_0_0_9.jsonl.gz", b"x")
    roots.corporate.write(f"{day.corporate_prefix}{AUDIT.topic}_0_10-19.jsonl.gz", b"came late")
    batch.submit("SUCCEEDED")
    source = BatchCoalescerStatus(batch.client, roots, cache_seconds=0)
    remembered = source.status(day)
    kept = roots.published.head(completion_proof_key(day))
    source.status(day)
    assert kept == roots.published.head(completion_proof_key(day))

    batch.forget()
    assert source.status(day).state is CoalescerState.NOT_STARTED, "Batch cannot have forgotten a day of yesterday"
    with clock_at(in_eight_days()):
        forgotten = BatchCoalescerStatus(batch.client, roots).status(day)
        assert forgotten.state is CoalescerState.COMPLETE
        assert launch_of(day.storage_day, forgotten) == launch_of(day.storage_day, remembered)
        batch.submit("RUNNING")  # of any day: it deletes under the same prefix
        assert BatchCoalescerStatus(batch.client, roots).status(day).state is CoalescerState.RUNNING


def test_a_later_completion_renews_the_proof(batch: Batch, roots: Roots) -> None:  # noqa: F811
    day = AUDIT.on(yesterday())
    source = BatchCoalescerStatus(batch.client, roots, cache_seconds=0)
    batch.submit("SUCCEEDED")
    source.status(day)
    roots.corporate.write(f"{day.corporate_prefix}{AUDIT.topic}_0_0-9.jsonl.gz", b"late data")
    batch.submit("SUCCEEDED")
    source.status(day)
    kept = CompletionProof.from_bytes(roots.published.read(completion_proof_key(day)))
    assert kept
    assert kept.fingerprint == listing_fingerprint(roots.corporate.list(day.corporate_prefix))


def test_what_cannot_be_read_of_a_forgotten_day_is_unknown(batch: Batch, roots: Roots) -> None:  # noqa: F811
    nowhere = open_storage("s3://no-such-bucket", endpoint_url=batch.endpoint, region_name=REGION)
    day = AUDIT.on(yesterday())
    with clock_at(in_eight_days()):
        status = BatchCoalescerStatus(batch.client, replace(roots, published=nowhere)).status(day)
    assert status.state is CoalescerState.UNKNOWN
    assert "could not be read" in status.reason


def test_a_proof_that_cannot_be_kept_leaves_the_gate_open_and_is_tried_again(
    batch: Batch,  # noqa: F811
    roots: Roots,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    day = AUDIT.on(yesterday())
    in_its_place = f"{completion_proof_key(day)}/in its place"
    roots.published.write(in_its_place, b"")
    batch.submit("SUCCEEDED")
    source = BatchCoalescerStatus(batch.client, roots, cache_seconds=0)
    assert source.status(day).is_open
    assert "is not kept yet" in caplog.text
    roots.published.delete([in_its_place])
    assert source.status(day).is_open
    assert roots.published.head(completion_proof_key(day))
