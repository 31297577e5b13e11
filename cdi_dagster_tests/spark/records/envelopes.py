"""Envelopes for tests: encrypts a plaintext as producers do, with the data key wrapped as STANDALONE wraps it."""

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

DATA_KEY = bytes(range(16))
VECTOR = b"defghijklmnopqrs"


def wrapped(data_key: bytes) -> str:
    return base64.b64encode(data_key[::-1]).decode()


def encrypted(plaintext: bytes, *, data_key: bytes = DATA_KEY, vector: bytes = VECTOR) -> str:
    counter = vector.lstrip(b"\0").rjust(16, b"\0")
    cipher = Cipher(algorithms.AES(data_key), modes.CTR(counter)).encryptor()
    return base64.b64encode(cipher.update(plaintext)).decode()


def message_for(plaintext: bytes, *, data_key: bytes = DATA_KEY, vector: bytes = VECTOR) -> dict[str, Any]:
    return {
        "dbObject": encrypted(plaintext, data_key=data_key, vector=vector),
        "encryption": {
            "encryptionKeyId": "cloudhsm:1,2",
            "keyEncryptionKeyId": "cloudhsm:1,2",
            "encryptedEncryptionKey": wrapped(data_key),
            "initialisationVector": base64.b64encode(vector).decode(),
        },
        "_lastModifiedDateTime": "2020-05-21T17:18:15.693+0000",
        "_id": {"auditId": "x"},
    }


def envelope_line(message: dict[str, Any]) -> bytes:
    return json.dumps({"traceId": "t", "message": message, "timestamp": "2020-05-21T17:18:15.693+0000"}).encode()


def envelope_for(plaintext: bytes, **changes: Any) -> bytes:
    return envelope_line({**message_for(plaintext), **changes})
