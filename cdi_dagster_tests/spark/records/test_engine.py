import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.ingest_report import RejectReason
from cdi_dagster.spark.records.decrypt import DecryptorCache
from cdi_dagster.spark.records.engine import BlockResult, RecordEngine
from cdi_dagster.spark.records.keys import KeyRef
from cdi_dagster_tests.collections import CLAIMANT
from cdi_dagster_tests.spark.records.envelopes import DATA_KEY, envelope_for, envelope_line, message_for, wrapped
from cdi_dagster_tests.spark.records.vectors import ReversedKeys

STANDARD = b'"_lastModifiedDateTime":{"d_date":"1980-01-01T00:00:00.000Z"}'


def process(*lines: bytes, keys: ReversedKeys | None = None) -> BlockResult:
    return RecordEngine(CLAIMANT, keys or ReversedKeys()).process(lines)


def record_and_fallbacks(plaintext: bytes) -> tuple[bytes, int]:
    result = process(envelope_for(plaintext))
    assert result.rejects == ()
    return result.records, result.fallbacks


def test_records_keep_the_order_of_their_envelopes_and_rejects_name_their_index() -> None:
    result = process(
        envelope_for(b'{"n":0}'), b"not json", envelope_for(b'{"n":2}'), envelope_for(b"[]"), envelope_for(b'{"n":4}')
    )

    assert [json.loads(line)["n"] for line in result.records.splitlines()] == [0, 2, 4]
    assert result.records.endswith(b"\n")
    assert result.published == 3
    assert [(reject.index, reject.reason) for reject in result.rejects] == [
        (1, RejectReason.ENVELOPE),
        (3, RejectReason.PAYLOAD),
    ]


def test_an_empty_block_gives_nothing_and_asks_for_no_key() -> None:
    keys = ReversedKeys()

    assert process(keys=keys) == BlockResult(records=b"", published=0, rejects=(), fallbacks=0)
    assert keys.calls == []


def test_missing_keys_of_a_block_are_asked_for_in_one_call_and_kept() -> None:
    keys = ReversedKeys()
    engine = RecordEngine(CLAIMANT, keys)
    first, second, third = (envelope_line(message_for(b"{}", data_key=os.urandom(16))) for _ in range(3))

    engine.process([first, second, first])
    engine.process([second, third, b"not json"])
    engine.process([first, third])

    assert [len(requested) for requested in keys.calls] == [2, 1]


def test_the_same_encrypted_key_under_two_key_encryption_keys_is_two_keys() -> None:
    keys = ReversedKeys()
    one, other = message_for(b"{}"), message_for(b"{}")
    other["encryption"]["keyEncryptionKeyId"] = "cloudhsm:3,4"

    assert process(envelope_line(one), envelope_line(other), keys=keys).published == 2
    assert keys.calls == [
        {KeyRef("cloudhsm:1,2", wrapped(DATA_KEY)), KeyRef("cloudhsm:3,4", wrapped(DATA_KEY))},
    ]


def test_a_block_with_more_keys_than_are_kept_still_works() -> None:
    keys = ReversedKeys()
    refs = [KeyRef("k", wrapped(os.urandom(16))) for _ in range(7)]
    cache = DecryptorCache(keys, size=3)

    assert cache.decryptors(set(refs), None).keys() == set(refs)
    assert cache.decryptors(set(refs), None).keys() >= set(refs)
    assert sum(map(len, keys.calls)) <= 7 + 4


def test_a_key_that_was_forgotten_since_its_block_was_begun_is_asked_for_again() -> None:
    keys = ReversedKeys()
    cache = DecryptorCache(keys, size=2)
    first, *others = (KeyRef("k", wrapped(os.urandom(16))) for _ in range(3))
    cache.decryptors({first}, None)
    request = cache.request({first})
    cache.decryptors(set(others), cache.request(set(others)))

    assert request is None
    assert first in cache.decryptors({first}, request)
    assert keys.calls == [{first}, set(others), {first}]


def test_a_key_that_the_key_service_cannot_decrypt_rejects_its_records_only() -> None:
    bad, good = message_for(b"{}", data_key=os.urandom(16)), message_for(b"{}")
    ref = KeyRef("cloudhsm:1,2", bad["encryption"]["encryptedEncryptionKey"])

    result = process(*map(envelope_line, (bad, good, bad)), keys=ReversedKeys(refused=[ref]))

    assert result.published == 1
    assert [(reject.index, reject.reason) for reject in result.rejects] == [(0, "key"), (2, "key")]


def test_a_data_key_of_unusable_length_is_a_matter_of_encryption() -> None:
    message = message_for(b"{}")
    message["encryption"]["encryptedEncryptionKey"] = wrapped(b"short")

    assert [reject.reason for reject in process(envelope_line(message)).rejects] == ["encryption"]


def test_key_service_failure_is_never_a_reject() -> None:
    class Unavailable:
        def data_keys(self, refs: Iterable[KeyRef]) -> Mapping[KeyRef, bytes | None]:
            raise CdiError(FailureClass.DKS_UNAVAILABLE, "The key service does not answer.")

    with pytest.raises(CdiError, match="does not answer"):
        RecordEngine(CLAIMANT, Unavailable()).process([b"not json", envelope_for(b"{}")])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda message: message["encryption"].pop("keyEncryptionKeyId"), "encryption"),
        (lambda message: message["encryption"].update(encryptedEncryptionKey=""), "encryption"),
        (lambda message: message["encryption"].update(initialisationVector=7), "encryption"),
        (lambda message: message["encryption"].update(initialisationVector="AQ"), "encryption"),
        (lambda message: message["encryption"].update(initialisationVector="é"), "encryption"),
        (lambda message: message["encryption"].update(initialisationVector="AQ" * 24), "encryption"),
        (lambda message: message.update(encryption=[]), "encryption"),
        (lambda message: message.pop("dbObject"), "envelope"),
        (lambda message: message.update(dbObject="é"), "ciphertext"),
        (lambda message: message.update(dbObject="A"), "ciphertext"),
    ],
)
def test_damaged_message_is_rejected_for(damage: Callable[[dict[str, Any]], Any], reason: str) -> None:
    message = message_for(b"{}")
    damage(message)

    assert [reject.reason for reject in process(envelope_line(message)).rejects] == [reason]


def test_an_envelope_that_is_not_utf8_is_rejected() -> None:
    line = envelope_for(b"{}").replace(b'"traceId": "t"', b'"traceId": "\xff"')

    assert [reject.reason for reject in process(line).rejects] == ["envelope"]


def test_reject_details_hold_neither_payload_nor_key_material() -> None:
    marker = b"SECRET"
    message = message_for(b"{}")
    message["encryption"]["encryptedEncryptionKey"] = "SECRET=="
    lines = [
        *(envelope_for(marker), envelope_for(b'{"SECRET":}'), envelope_for(b'{"SECRET":"2020-13-01T00:00:00.000Z"}')),
        *(envelope_for(b'{"a":"SECRET\xff"}'), envelope_for(b'["SECRET"]'), envelope_for(b'{"SECRET":"\\ud800"}')),
        *(envelope_for(b'{"SECRET":"\\\\u0000"}'), envelope_for(b'{"_lastModifiedDateTime":"SECRET"}')),
        *(envelope_for(b'{"context":"SECRET"}', db="data", collection="businessAudit"), envelope_line(message)),
        *(
            b"SECRET",
            b'{"message":"SECRET"}',
            b'{"message":{"dbObject":"SECRET","encryption":"SECRET"}}',
            b"SECRET\xff",
        ),
        *(envelope_for(b"{}", dbObject="SECRET"), b'"' + b"SECRET" * 100, b"[" * 2000 + b"SECRET"),
    ]

    result = process(*lines)

    assert len(result.rejects) == len(lines)
    assert not [reject for reject in result.rejects if "SECRET" in repr(reject)]


def test_text_beyond_what_python_nests_is_rejected_and_harms_nobody() -> None:
    for opening in (b"[", b'{"a":', b'[{"a":'):
        result = process(envelope_for(b'{"a":' + opening * 400_000), opening * 400_000, envelope_for(b"{}"))

        assert [reject.reason for reject in result.rejects] == ["payload", "envelope"]
        assert result.published == 1


def test_a_deep_record_does_not_depend_on_how_deep_its_caller_stands() -> None:
    deep = b'{"a":' * 1000 + b'"2020-05-21T17:18:15.693+0000"' + b"}" * 1000
    engine = RecordEngine(CLAIMANT, ReversedKeys())
    line = envelope_for(deep)

    def from_below(frames: int) -> BlockResult:
        return from_below(frames - 1) if frames else engine.process([line])

    shallow = engine.process([line])

    assert shallow.published == 1
    assert from_below(sys.getrecursionlimit() - 400) == shallow


@pytest.mark.parametrize("digits", [19, 20, 4000, 4001, 4300, 4301, 50_000])
def test_integers_are_exact_at_any_length(digits: int) -> None:
    number = b"-" + b"1234567890" * (digits // 10 + 1)
    number = number[: digits + 1]

    record, _ = record_and_fallbacks(
        b'{"_id":%b,"n":[%b,{"d":"2020-05-21T17:18:15.693Z","a":"\xc3\xa9"}]}' % (number, number)
    )

    assert record == (
        b'{"_id":{"d_oid":"%b"},' % number
        + STANDARD
        + b',"n":[%b,{"a":"\xc3\xa9","d":{"d_date":"2020-05-21T17:18:15.693Z"}}]}\n' % number
    )


def test_an_integer_of_a_million_digits_takes_no_time() -> None:
    record, _ = record_and_fallbacks(b'{"n":' + b"9" * 1_000_000 + b"}")

    assert record.endswith(b'"n":' + b"9" * 1_000_000 + b"}\n")


@pytest.mark.parametrize(
    ("plaintext", "written"),
    [
        (b'{"d":"2023-03-26T11:07:30.076+0000"}', b'"d":{"d_date":"2023-03-26T11:07:30.076Z"}'),
        (b'{"d":"2023-07-26T00:07:30.076+0100"}', b'"d":{"d_date":"2023-07-25T23:07:30.076Z"}'),
        (b'{"d":"2024-02-29T11:07:30.076Z"}', b'"d":{"d_date":"2024-02-29T11:07:30.076Z"}'),
        (b'{"d":{"$date":"2023-03-26T11:07:30.076+0000"}}', b'"d":{"d_date":"2023-03-26T11:07:30.076Z"}'),
        (b'{"d":[{"$date":"2023-03-26T11:07:30.076Z"}]}', b'"d":[{"d_date":{"d_date":"2023-03-26T11:07:30.076Z"}}]'),
        (b'{"d":"at 2023-03-26T11:07:30.076+0000"}', b'"d":"at 2023-03-26T11:07:30.076+0000"'),
        (b'{"d":{"$oid":"x"}}', b'"d":{"d_oid":"x"}'),
        (b'{"d":"cost $5"}', b'"d":"cost d_5"'),
        (b'{"d":"is_archived"}', b'"d":"is_removed"'),
        ('{"d":"Zoë £ ☎ 山"}'.encode(), '"d":"Zoë £ ☎ 山"'.encode()),
        (b'{"d":"a\\nb \\"c\\" \\\\ \\u00e9"}', b'"d":"a\\nb \\"c\\" \\\\ \xc3\xa9"'),
        (b'{"d":[0.5,-12.25,1e3,0.0001,18446744073709551615]}', b'"d":[0.5,-12.25,1000.0,0.0001,18446744073709551615]'),
    ],
)
def test_ordinary_data_takes_the_fast_path(plaintext: bytes, written: bytes) -> None:
    assert record_and_fallbacks(plaintext) == (b"{" + STANDARD + b"," + written + b"}\n", 0)


def test_a_float_that_is_written_in_two_ways_takes_the_plain_path() -> None:
    written = b'"d":[1e+22,1e-05,1.5e-07,1e+16,Infinity,NaN,18446744073709551616]'

    assert record_and_fallbacks(b"{%b}" % written) == (b"{" + STANDARD + b"," + written + b"}\n", 1)


@pytest.mark.parametrize("size", [1_000_000])
@pytest.mark.parametrize(
    "text",
    [
        *(b"$", b"_archived", b"\\n", b"T1", b'\\"', b"[", b"\\\\", b"1T11:", b'{\\"$', b"-", b"+", b"Z", b"9+9"),
        *(b"\\\\n", b"\\\\\\n", b'Z\\"', b'\\"n', b"0e-", b"0.0000"),
    ],
)
def test_a_long_value_takes_no_more_than_its_share_of_time(text: bytes, size: int) -> None:
    line = envelope_for(
        b'{"a":"' + text * (size // len(text)) + b'"}', db="core", collection="healthAndDisabilityDeclaration"
    )

    assert process(line).published == 1
