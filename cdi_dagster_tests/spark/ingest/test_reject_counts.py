"""Rejects counted by what may be their common cause, without anything of their content."""

import json
from typing import Any

import pytest

from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.ingest_report import IngestReport, KeyServiceCounts, ObjectCounts
from cdi_dagster.core.reject_limit import parse_reject_limit
from cdi_dagster.spark.ingest.outcome import require_few_rejects
from cdi_dagster.spark.ingest.reject_counts import RejectCounts, producer_shape
from cdi_dagster.spark.ingest.rejects import StoredReject

ENCRYPTION = {"keyEncryptionKeyId": "hsm:1", "encryptedEncryptionKey": "x", "initialisationVector": "y"}
MESSAGE = {
    "@type": "V",
    "_id": {"id": "1"},
    "_lastModifiedDateTime": "t",
    "collection": "c",
    "db": "d",
    "dbObject": "secret",
    "encryption": ENCRYPTION,
}
ENVELOPE = {"@type": "V4", "timestamp": "t", "traceId": "a", "unitOfWorkId": "b", "version": "v", "message": MESSAGE}


def reject(reason: str, envelope: Any, key: str = "day/object-1") -> StoredReject:
    text = envelope if isinstance(envelope, bytes) else json.dumps(envelope).encode()
    return StoredReject(reason=reason, detail="", key=key, line_number=1, offset=1, envelope=text, line={})


def counted(*rejects: StoredReject) -> RejectCounts:
    counts = RejectCounts()
    for each in rejects:
        counts.add(each)
    return counts


def test_a_day_rejected_for_one_key_names_the_key_to_restore() -> None:
    counts = counted(reject("key", ENVELOPE), reject("key", ENVELOPE, "day/object-2"))
    assert counts.key_to_restore == "hsm:1"
    assert counts.by_object == {"day/object-1": 1, "day/object-2": 1}
    assert counted(reject("key", ENVELOPE), reject("date", ENVELOPE)).key_to_restore is None
    other = {**ENVELOPE, "message": {**MESSAGE, "encryption": {**ENCRYPTION, "keyEncryptionKeyId": "hsm:2"}}}
    assert counted(reject("key", ENVELOPE), reject("key", other)).key_to_restore is None
    assert counted().key_to_restore is None


def test_a_shape_has_the_usual_fields_that_are_missing_and_no_other_name() -> None:
    assert producer_shape(ENVELOPE) == "usual fields"
    message = {name: value for name, value in MESSAGE.items() if name != "_id"}
    encryption = {**ENCRYPTION, "encryptionKeyId": "hsm:1"}
    other = {**ENVELOPE, "message": {**message, "encryption": encryption, "a name like Alice Smith": 1}}
    assert producer_shape(other) == "without message._id, with encryptionKeyId, 1 other fields"
    assert counted(reject("envelope", b"not json")).by_shape == {"no JSON object": 1}


@pytest.mark.parametrize(
    ("rejected", "advice"),
    [
        ({"key": 2}, "restored in the key service"),
        ({"key": 1, "date": 1}, "higher max_rejected"),
        ({"date": 2}, "higher"),
    ],
)
def test_a_run_that_was_stopped_for_one_key_advises_the_key_and_not_a_higher_limit(
    rejected: dict[str, int], advice: str
) -> None:
    counts = ObjectCounts(key="k", read=2, published=0, rejected=rejected, blank_lines=0, compressed_bytes=1)
    report = IngestReport(
        fingerprint="f",
        objects=(counts,),
        record_bytes=0,
        published_bytes=0,
        parts=0,
        fallback_records=0,
        key_service=KeyServiceCounts(),
        reject_samples=(),
        seconds=0.0,
        published_prefix=None,
        rejects_prefix="r/",
    )
    with pytest.raises(CdiError) as caught:
        require_few_rejects(report, parse_reject_limit("0"), rejects_uri="file:///r/")
    assert advice in caught.value.next_step
