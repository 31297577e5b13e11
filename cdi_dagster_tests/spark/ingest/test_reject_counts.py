"""Rejects counted by what may be their common cause, without anything of their content."""

import json
from typing import Any

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
