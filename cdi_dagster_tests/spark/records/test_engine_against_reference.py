import base64
import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cdi_dagster.core.collections import find_collection
from cdi_dagster.spark.records.engine import RecordEngine
from cdi_dagster_tests.spark.records import reference
from cdi_dagster_tests.spark.records.envelopes import envelope_line, message_for
from cdi_dagster_tests.spark.records.reference import KEYED
from cdi_dagster_tests.spark.records.strategies import (
    COLLECTION_IDS,
    EVENT_TYPES,
    MODIFIED,
    ROW_IDS,
    deep_payloads,
    payloads,
    written,
)
from cdi_dagster_tests.spark.records.vectors import (
    ReversedKeys,
    Vector,
    read_row_vectors,
    read_vectors,
    rows_of,
    unwrapped,
)

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
    if collection_id == KEYED:
        assert rows_of(result) == [row for row, _ in [reference.row_of(line, unwrap)] if row]
    else:
        assert result.rows == ()


def check_golden_record(vector: Vector) -> None:
    record, reason = reference.record_of(vector.envelope, vector.collection_id, unwrap)
    assert record == vector.expected
    assert vector.reason in (None, reason)


def test_the_reference_makes_the_golden_records() -> None:
    for vector in read_vectors():
        check_golden_record(vector)


def test_the_reference_makes_the_golden_rows() -> None:
    for vector in read_row_vectors():
        row, reason = reference.row_of(vector.envelope, unwrap)
        assert (row, reason) == (vector.expected, vector.reason), vector.name


@st.composite
def envelopes(draw: st.DrawFn, plaintexts: st.SearchStrategy[bytes]) -> bytes:
    message: dict[str, Any] = message_for(draw(plaintexts))
    message["_lastModifiedDateTime"] = draw(MODIFIED)
    if draw(st.booleans()):
        message["_id"] = draw(ROW_IDS)
    if draw(st.booleans()):
        message["@type"] = draw(EVENT_TYPES)
    return written(draw, {"message": message}).encode("utf-8", "surrogatepass")


@pytest.mark.slow  # hundreds of examples
@fuzzed
@given(data=st.data(), collection_id=st.sampled_from(COLLECTION_IDS))
def test_engine_and_reference_make_the_same_record_or_reject_it_for_the_same_reason(
    data: st.DataObject, collection_id: str
) -> None:
    audit = collection_id == "data:businessAudit"
    assert_same(data.draw(envelopes(payloads(audit=audit))), collection_id)


@pytest.mark.slow  # hundreds of examples
@fuzzed
@given(data=st.data())
def test_engine_and_reference_make_the_same_row_of_a_keyed_collection(data: st.DataObject) -> None:
    escaped = payloads(audit=False).map(lambda text: text.replace(b'"_removed', b'"_\\u0072emoved'))
    assert_same(data.draw(envelopes(st.one_of(payloads(audit=False), escaped))), KEYED)


@settings(fuzzed, max_examples=max(20, EXAMPLES // 20))
@given(plaintext=deep_payloads(), collection_id=st.sampled_from(COLLECTION_IDS[:4]))
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


@fuzzed_less
@given(data=st.data(), collection_id=st.sampled_from(COLLECTION_IDS))
def test_a_block_gives_what_its_envelopes_give_one_by_one(data: st.DataObject, collection_id: str) -> None:
    audit = collection_id == "data:businessAudit"
    lines = data.draw(st.lists(envelopes(payloads(audit=audit)), min_size=2, max_size=6))
    expected = [reference.record_of(line, collection_id, unwrap) for line in lines]

    result = RecordEngine(find_collection(collection_id), ReversedKeys()).process(lines)

    assert result.records == b"".join(record + b"\n" for record, _ in expected if record is not None)
    assert result.published == sum(record is not None for record, _ in expected)
    assert [(reject.index, reject.reason) for reject in result.rejects] == [
        (index, reason) for index, (_, reason) in enumerate(expected) if reason is not None
    ]
    if collection_id == KEYED:
        assert rows_of(result) == [row for row, _ in (reference.row_of(line, unwrap) for line in lines) if row]
        assert [row.position for row in result.rows] == [
            index for index, (_, reason) in enumerate(expected) if not reason
        ]


_PASSED_OVER = st.one_of(
    st.sampled_from(
        [
            *(
                b'"\\q"',
                b'"\x01"',
                b'"\t"',
                b'"\x7f"',
                b'"\\ud800"',
                b'"\\u12"',
                b'"\xc3\xa9"',
                b'"\xff"',
                b'"\xed\xa0\x80"',
            ),
            *(b"01", b"1.", b".5", b"-", b"1e", b"1E400", b"-0", b"NaN", b"Infinity", b"tru", b"9" * 5000, b"1.5e-7"),
            *(b"[1,]", b"[1 2]", b'{"a":1,}', b'{"a" 1}', b"{1:2}", b'{"\xff":1}', b'{"a":{"b":[]}}', b"", b" \r\n1\t"),
            *(b'1,"message":{"dbObject":"","encryption":{}}', b'1,"message":1', b'1,"m\\u0065ssage":null'),
        ]
    ),
    st.sampled_from([100, 990, 1000, 1021, 1022, 1023, 1024, 1025, 5000]).map(lambda n: b"[" * n + b"]" * n),
    st.binary(max_size=4),
)


@fuzzed_less
@given(
    value=_PASSED_OVER,
    place=st.sampled_from([b'{"x":%b,"message":', b'{"message":{"x":%b,"dbObject":']),
    at_end=st.booleans(),
)
def test_engine_and_reference_agree_on_what_stands_beside_the_message(value: bytes, place: bytes, at_end: bool) -> None:
    line = json.dumps({"message": message_for(b'{"a":"$"}')}, separators=(",", ":")).encode()
    if at_end:
        line = line[:-1] + b',"x":' + value + b"}"
    else:
        before = place.replace(b'"x":%b,', b"")
        line = line.replace(before, place.replace(b"%b", value), 1)
    assert_same(line, "core:claimant")
