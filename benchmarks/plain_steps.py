"""The steps of the plain chain: the record contract as plain functions, written in the obvious way.

Each step takes and returns text, so each parses and dumps JSON, and dates are found by walking every value. Correct,
not fast: the baseline of the record engine, with which it shares no code. Standard library, except AES.
`plain_chain` runs them on Spark.
"""

import base64
import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_AUDIT = ("data", "businessAudit")
_WITHOUT_LINE_BREAKS = {
    ("penalties-and-deductions", "sanction"),
    ("core", "healthAndDisabilityDeclaration"),
    ("accepted-data", "healthAndDisabilityCircumstances"),
}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}(?:Z|\+\d{4})$")
_EPOCH = "1980-01-01T00:00:00.000Z"
_BAD_REQUEST = 400


class RejectedEnvelope(Exception):  # noqa: N818 - an outcome
    """This envelope cannot become a record; `args[0]` is the reason family."""


class Message(NamedTuple):
    """One envelope's message on its way to a record.

    Attributes:
        db: database.
        collection: collection name.
        encryption: `message.encryption`.
        modified: `message._lastModifiedDateTime`, any JSON value.
        text: `message.dbObject`, at first as ciphertext, then as the plaintext that the steps work on.
    """

    db: str
    collection: str
    encryption: dict[str, Any]
    modified: Any
    text: str


def parse_envelope(line: str, db: str, collection: str) -> Message:
    """Take what is needed from the envelope; `db` and `collection` apply where it states none."""
    try:
        message = json.loads(line)["message"]
        text = message["dbObject"]
    except (ValueError, TypeError, KeyError):
        raise RejectedEnvelope("envelope") from None
    if not isinstance(text, str):
        raise RejectedEnvelope("envelope")
    encryption = message.get("encryption")
    if not isinstance(encryption, dict):
        raise RejectedEnvelope("encryption")
    for name in ("keyEncryptionKeyId", "encryptedEncryptionKey", "initialisationVector"):
        if not isinstance(encryption.get(name), str) or not encryption[name]:
            raise RejectedEnvelope("encryption")
    stated = message.get("db"), message.get("collection")
    db, collection = stated if all(stated) else (db, collection)
    return Message(db, collection, encryption, message.get("_lastModifiedDateTime"), text)


class Keys(NamedTuple):
    """How to reach the key service."""

    url: str
    ca: str
    certificate: str
    private_key: str
    correlation_id: str


def tls_context(keys: Keys) -> ssl.SSLContext:
    """Return our side of mutual TLS."""
    context = ssl.create_default_context(cafile=keys.ca)
    context.load_cert_chain(keys.certificate, keys.private_key)
    return context


def request_data_key(keys: Keys, tls: ssl.SSLContext, key_id: str, encrypted_key: str) -> bytes | None:
    """Request one data key from the key service; None where it answers 400."""
    query = urllib.parse.urlencode({"keyId": key_id, "correlationId": keys.correlation_id})
    request = urllib.request.Request(f"{keys.url}/datakey/actions/decrypt?{query}", encrypted_key.encode())  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30, context=tls) as reply:  # noqa: S310 - configured
            return base64.b64decode(json.load(reply)["plaintextDataKey"])
    except urllib.error.HTTPError as error:
        if error.code == _BAD_REQUEST:
            return None
        raise


def decrypt(message: Message, data_key_of: Callable[[str, str], bytes | None]) -> Message:
    """Decrypt the text: AES-CTR, the counter starting at the initialisation vector."""
    encryption = message.encryption
    data_key = data_key_of(encryption["keyEncryptionKeyId"], encryption["encryptedEncryptionKey"])
    if data_key is None:
        raise RejectedEnvelope("key")
    try:
        counter = int(base64.b64decode(encryption["initialisationVector"]).hex(), 16).to_bytes(16)
        cipher = Cipher(algorithms.AES(data_key), modes.CTR(counter))
    except (ValueError, OverflowError):
        raise RejectedEnvelope("encryption") from None
    try:
        plaintext = cipher.decryptor().update(base64.b64decode(message.text)).decode()
    except ValueError:
        raise RejectedEnvelope("ciphertext") from None
    return message._replace(text=plaintext)


def transform(message: Message) -> Message:
    """Replace an audit message by its stamped context; leave others unchanged."""
    payload = _parsed_object(message.text)
    if (message.db, message.collection) != _AUDIT:
        return message
    context, audit_type = payload.get("context"), payload.get("auditType")
    if not isinstance(context, dict) or not context or not audit_type:
        raise RejectedEnvelope("audit")
    modified = message.modified
    stamp = "" if modified is None or isinstance(modified, list | dict) else str(modified)
    return message._replace(
        text=json.dumps({**context, "AUDIT_EVENT": audit_type, "TIME_STAMP": stamp, "TIME_STAMP_ORIG": stamp})
    )


def validate(message: Message) -> Message:
    """Write the last modified date, and wrap every date and a primitive id."""
    record = _parsed_object(message.text)
    try:
        record["_lastModifiedDateTime"] = {"$date": _utc(_last_modified(record))}
        record = {key: _with_dates(value, in_object=True) for key, value in record.items()}
    except (ValueError, TypeError, OverflowError):
        raise RejectedEnvelope("date") from None
    if "_removedDateTime" in record:
        record.pop("_archivedDateTime", None)
    record_id = record.get("_id")
    if record_id is not None and not isinstance(record_id, dict | list):
        record["_id"] = {"$oid": str(record_id)}
    return message._replace(text=json.dumps(record))


def sanitise(message: Message) -> Message:
    """Replace, in the escaped text, what downstream cannot read."""
    text = json.dumps(_parsed_object(message.text))
    if (message.db, message.collection) in _WITHOUT_LINE_BREAKS:
        text = re.sub(r"(?<!\\)\\[r|n]", "", text)
    text = text.replace("$", "d_").replace("\\u0000", "")
    return message._replace(text=text.replace("_archivedDateTime", "_removedDateTime").replace("_archived", "_removed"))


def canonical(message: Message) -> str:
    """Return the record: sorted keys, no spaces, nothing escaped that need not be."""
    record = json.dumps(_parsed_object(message.text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        record.encode()
    except UnicodeEncodeError:
        raise RejectedEnvelope("encoding") from None
    return record


def _parsed_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise RejectedEnvelope("payload") from None
    if not isinstance(value, dict):
        raise RejectedEnvelope("payload")
    return value


def _last_modified(record: dict[str, Any]) -> Any:
    for name in ("_lastModifiedDateTime", "_removedDateTime", "createdDateTime"):
        stated = record.get(name)
        if isinstance(stated, dict):
            stated = stated.get("$date")
        if stated:
            return stated
    return _EPOCH


def _with_dates(value: Any, *, in_object: bool) -> Any:
    if isinstance(value, str):
        return {"$date": _utc(value)} if _DATE.match(value) else value
    if isinstance(value, list):
        return [_with_dates(item, in_object=False) for item in value]
    if isinstance(value, dict):
        date = value.get("$date")
        if in_object and len(value) == 1 and date and not isinstance(date, dict | list):
            return {"$date": _utc(date)}
        return {key: _with_dates(member, in_object=True) for key, member in value.items()}
    return value


def _utc(date: Any) -> str:
    moment = datetime.strptime(date, "%Y-%m-%dT%H:%M:%S.%f%z").astimezone(UTC)
    return f"{moment.year}-{moment:%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
