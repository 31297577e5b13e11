"""Storage days of encrypted envelopes in whose payloads markers are planted, and whose data keys are known.

The markers are plain words: what hides secrets by their looks (the scrubbing of log lines) does not hide these.
"""

import base64
import gzip
import json
import zlib
from collections.abc import Sequence
from datetime import date
from random import Random
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cdi_dagster.coalescer import coalesce
from cdi_dagster.core.object_names import ObjectName
from cdi_dagster.demo.key_service import wrap_data_key
from cdi_dagster.storage import Storage
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.leaks.leak_search import Secrets

VALUE = "Wolpertinger of Ixtlan"
NESTED = "Quetzal above Llareggub"
KEY = "harbourOfTheQuokka"
BAD_VALUE = "Borogove under Xanadu"
BAD_KEY = "gardenOfTheSnark"
RECORDS_AN_OBJECT = 40

_random = Random(20230326)
DATA_KEYS = [_random.randbytes(size) for size in (16, 24, 32)]
"""Those of the envelopes, one after the other."""
USELESS_DATA_KEY = _random.randbytes(17)

TEXTS = {"value": VALUE, "nested value": NESTED, "payload key": KEY, "bad value": BAD_VALUE, "bad key": BAD_KEY}
SECRETS = Secrets(
    {name: text.encode() for name, text in TEXTS.items()}
    | {f"data key {len(data_key)}": data_key for data_key in [*DATA_KEYS, USELESS_DATA_KEY]}
)


def good_payload(number: int) -> bytes:
    context: dict[str, Any] = {
        "AUDIT_ID": f"{VALUE} {number}",
        KEY: f"{NESTED} {number}",
        "list": [{KEY: [NESTED, number]}, "2023-03-26T09:30:00.123Z"],
        "_lastModifiedDateTime": "2023-03-26T09:30:00.123+0000",
    }
    if number % 5 == 0:
        context["slow"] = "\0 and \ud83d\ude00"  # takes the plain algorithm
    return json.dumps({"context": context, "auditType": f"{VALUE} type"}).encode()


def bad_payloads() -> list[bytes]:
    """One for every way in which a payload is rejected after it was decrypted."""
    context = {BAD_KEY: BAD_VALUE}
    return [
        f'{{"context": {{"{BAD_KEY}": "{BAD_VALUE}'.encode(),
        json.dumps(BAD_VALUE).encode(),
        f'{{"{BAD_KEY}": {BAD_VALUE}}}'.encode(),
        f'{{"context": {{"{BAD_KEY}": "'.encode() + b'\xff\xfe"}}' + BAD_VALUE.encode(),
        json.dumps({"context": context}).encode(),
        json.dumps({BAD_KEY: BAD_VALUE, "auditType": BAD_VALUE}).encode(),
        json.dumps({"context": BAD_VALUE, "auditType": BAD_VALUE}).encode(),
        json.dumps({"context": context | {"_lastModifiedDateTime": BAD_VALUE}, "auditType": BAD_VALUE}).encode(),
        json.dumps({"context": {BAD_KEY: "2023-02-30T10:00:00.000Z"}, "auditType": BAD_VALUE}).encode(),
        json.dumps({"context": context | {"half": "\ud800"}, "auditType": BAD_VALUE}).encode(),
        json.dumps({"context": context | {"when": {"$date": BAD_VALUE}}, "auditType": BAD_VALUE}).encode(),
        f'{{"context": {"[" * 200_000}"{BAD_KEY}"{"]" * 200_000}, "auditType": "{BAD_VALUE}"}}'.encode(),
    ]


def envelope(payload: bytes, data_key: bytes) -> bytes:
    vector = _random.randbytes(16)
    cipher = Cipher(algorithms.AES(data_key if len(data_key) in (16, 24, 32) else bytes(16)), modes.CTR(vector))
    message = {
        "dbObject": base64.b64encode(cipher.encryptor().update(payload)).decode(),
        "encryption": {
            "keyEncryptionKeyId": "cloudhsm:1,2",
            "encryptedEncryptionKey": wrap_data_key(data_key),
            "initialisationVector": base64.b64encode(vector).decode(),
        },
        "_lastModifiedDateTime": "2023-03-26T09:30:00.123+0000",
        "_id": {"auditId": "x"},
    }
    return json.dumps({"message": message}).encode()


def good_envelopes(count: int) -> list[bytes]:
    return [envelope(good_payload(number), DATA_KEYS[number % len(DATA_KEYS)]) for number in range(count)]


def bad_envelopes() -> list[bytes]:
    broken = [envelope(payload, DATA_KEYS[0]) for payload in bad_payloads()]
    return [*broken, envelope(good_payload(0), USELESS_DATA_KEY)]


def write_day(corporate: Storage, storage_day: date, envelopes: Sequence[bytes], *, damaged: bool = False) -> None:
    """Write a coalesced storage day, an object for every so many envelopes; damaged: the last checksum is wrong."""
    prefix = AUDIT.on(storage_day).corporate_prefix
    for partition, first in enumerate(range(0, len(envelopes), RECORDS_AN_OBJECT)):
        lines = envelopes[first : first + RECORDS_AN_OBJECT]
        name = ObjectName(
            topic=AUDIT.topic,
            kafka_partition=partition,
            first_offset=first,
            last_offset=first + len(lines) - 1,
            coalesced=False,
        )
        content = gzip.compress(b"".join(line + b"\n" for line in lines))
        if damaged:
            content = content[:-8] + (zlib.crc32(content) & 0xFFFFFFFF).to_bytes(4) + content[-4:]
        corporate.write(f"{prefix}{name}", content)
    assert coalesce(corporate, AUDIT.on(storage_day)).succeeded
