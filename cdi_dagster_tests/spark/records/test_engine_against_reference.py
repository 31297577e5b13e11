import base64
import json
import os
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cdi_dagster.core.collections import find_collection
from cdi_dagster.spark.records.engine import RecordEngine
from cdi_dagster_tests.spark.records import reference
from cdi_dagster_tests.spark.records.envelopes import envelope_line, message_for
from cdi_dagster_tests.spark.records.strategies import COLLECTION_IDS, MODIFIED, deep_payloads, payloads, written
from cdi_dagster_tests.spark.records.vectors import ReversedKeys, Vector, read_vectors, unwrapped

EXAMPLES = int(os.environ.get("CDI_FUZZ_EXAMPLES", "250"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="CDI_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    database=None,
)

fuzzed_less = settings(fuzzed, max_examples=max(50, EXAMPLES // 5))


def unwrap(_key_encryption_key_id: str, encrypted_data_key: str) -> bytes | None:
    return unwrapped(encrypted_data_key)


def assert_same(line: bytes, collection_id: str) -> None:
    expected, reason = reference.record_of(line, collection_id, unwrap)

    result = RecordEngine(find_collection(collection_id), ReversedKeys()).process([line])

    assert [reject.reason for reject in result.rejects] == ([] if reason is None else [reason])
    assert result.records == (b"" if expected is None else expected + b"\n")


def check_golden_record(vector: Vector) -> None:
    record, reason = reference.record_of(vector.envelope, vector.collection_id, unwrap)
    assert record == vector.expected
    assert vector.reason in (None, reason)


def test_the_reference_makes_the_golden_records() -> None:
    for vector in read_vectors():
        check_golden_record(vector)


@st.composite
def envelopes(draw: st.DrawFn, plaintexts: st.SearchStrategy[bytes]) -> bytes:
    message: dict[str, Any] = message_for(draw(plaintexts))
    message["_lastModifiedDateTime"] = draw(MODIFIED)
    return written(draw, {"message": message}).encode("utf-8", "surrogatepass")


@fuzzed
@given(data=st.data(), collection_id=st.sampled_from(COLLECTION_IDS))
def test_engine_and_reference_make_the_same_record_or_reject_it_for_the_same_reason(
    data: st.DataObject, collection_id: str
) -> None:
    audit = collection_id == "data:businessAudit"
    assert_same(data.draw(envelopes(payloads(audit=audit))), collection_id)


@settings(fuzzed, max_examples=max(20, EXAMPLES // 20))
@given(plaintext=deep_payloads(), collection_id=st.sampled_from(COLLECTION_IDS[:3]))
def test_engine_and_reference_agree_on_how_deep_is_too_deep(plaintext: bytes, collection_id: str) -> None:
    assert_same(envelope_line(message_for(plaintext)), collection_id)


_PIECES = st.sampled_from(["", "=", "==", "===", "A", "QUJD", "QUI=", "\n", '"', "é", "-", "_", "QQ==QQ==", "/+"])
_MATERIAL = st.one_of(st.lists(_PIECES, max_size=4).map("".join), st.none(), st.integers(), st.just("ZGVmZ2hpamts"))


@fuzzed_less
@given(changes=st.fixed_dictionaries({}, optional={n: _MATERIAL for n in ("dbObject", "db", "collection", "_id")}))
@example(changes={"db": "data", "collection": "businessAudit"})
def test_engine_and_reference_agree_on_odd_messages(changes: dict[str, Any]) -> None:
    assert_same(envelope_line({**message_for(b'{"a":"$"}'), **changes}), "core:claimant")


@fuzzed_less
@given(
    changes=st.fixed_dictionaries(
        {}, optional={name: _MATERIAL for name in ("keyEncryptionKeyId", "initialisationVector", "encryptionKeyId")}
    ),
    vector=st.binary(max_size=18),
)
def test_engine_and_reference_agree_on_odd_encryption_materials(changes: dict[str, Any], vector: bytes) -> None:
    message = message_for(b'{"a":"$"}')
    message["encryption"] |= {"initialisationVector": base64.b64encode(vector).decode(), **changes}
    assert_same(envelope_line(message), "core:claimant")


@fuzzed_less
@given(line=st.one_of(st.binary(max_size=20), st.text(max_size=20).map(str.encode)), at=st.integers(0, 400))
def test_engine_and_reference_agree_on_damaged_lines(line: bytes, at: int) -> None:
    whole = envelope_line(message_for(b'{"a":"$"}'))
    assert_same(line, "core:claimant")
    assert_same(whole[:at] + line + whole[at:], "core:claimant")
    assert_same(json.dumps({"message": line.decode("latin-1")}).encode(), "core:claimant")
