"""Parses a stored line to the parts of its envelope that the engine needs.

An ordinary line is parsed by msgspec, which builds only what the engine needs; any other by orjson; and a line that
orjson cannot parse, or not as the record contract does, by Python's `json`. Nothing is decrypted here. Internal to
`records`.
"""

from typing import Any, NamedTuple, NoReturn

import msgspec
import orjson

from cdi_dagster.core.collections import RecordRules, record_rules
from cdi_dagster.core.ingest_report import RejectReason
from cdi_dagster.spark.records import json_text
from cdi_dagster.spark.records.keys import KeyRef
from cdi_dagster.spark.records.nesting import with_room_for_nesting
from cdi_dagster.spark.records.rejection import reject


class Envelope(NamedTuple):
    """The parts of one envelope that the engine needs. A tuple, because one is made for every line.

    Attributes:
        ciphertext: `message.dbObject`, base64 text.
        key: the data key's reference.
        initialisation_vector: base64 text.
        rules: of the collection it states, else of the collection being ingested.
        modified: `message._lastModifiedDateTime` as text; empty where it is null, a list or an object, or not there.
        event_type: `message.@type`, likewise.
    """

    ciphertext: str
    key: KeyRef
    initialisation_vector: str
    rules: RecordRules
    modified: str
    event_type: str


_new = tuple.__new__  # half the cost of NamedTuple's constructor, called twice for every line


class _Encryption(msgspec.Struct, gc=False, rename="camel"):
    key_encryption_key_id: str
    encrypted_encryption_key: str
    initialisation_vector: str


class _Message(msgspec.Struct, gc=False):
    ciphertext: str = msgspec.field(name="dbObject")
    encryption: _Encryption
    db: str = ""
    collection: str = ""
    modified: str | None = msgspec.field(name="_lastModifiedDateTime", default=None)
    event_type: str | None = msgspec.field(name="@type", default=None)


class _Line(msgspec.Struct, gc=False):
    message: _Message


_read = msgspec.json.Decoder(_Line).decode


def parse_envelope(line: bytes, default_rules: RecordRules) -> Envelope:
    """Parse one line.

    Args:
        line: the envelope as stored, a trailing carriage return allowed.
        default_rules: those of the collection being ingested.

    Raises:
        RejectedError: `envelope` or `encryption`.
    """
    return _ordinary(line, default_rules) or _any(line, default_rules)


def _ordinary(line: bytes, default_rules: RecordRules) -> Envelope | None:
    """Parse a line whose fields are all valid; None for any other."""
    if not line.isascii():  # msgspec checks skipped values too, but not that they are UTF-8
        return None
    try:
        message = _read(line).message
    except (msgspec.DecodeError, RecursionError):
        return None
    ciphertext, encryption = message.ciphertext, message.encryption
    key_id, encrypted_key = encryption.key_encryption_key_id, encryption.encrypted_encryption_key
    initialisation_vector = encryption.initialisation_vector
    if not (key_id and encrypted_key and initialisation_vector):
        return None
    if len(line) - len(ciphertext) - len(encrypted_key) > json_text.MAX_DEPTH:  # room for that many brackets
        return None
    db, name = message.db, message.collection
    fields = (
        ciphertext,
        _new(KeyRef, (key_id, encrypted_key)),
        initialisation_vector,
        record_rules(db, name) if db and name else default_rules,
        message.modified or "",
        message.event_type or "",
    )
    return _new(Envelope, fields)


def _any(line: bytes, default_rules: RecordRules) -> Envelope:
    try:
        return _envelope(orjson.loads(line), default_rules, exact=False)
    except (orjson.JSONDecodeError, _NotExactError):
        return _envelope(_parse_exactly(line), default_rules, exact=True)


class _NotExactError(Exception):
    """A number's exact text is needed, and orjson parses integers beyond 64 bits as floats."""


def _parse_exactly(line: bytes) -> Any:
    try:
        return with_room_for_nesting(json_text.parse, line.decode("utf-8"))
    except UnicodeDecodeError as error:
        reject(RejectReason.ENVELOPE, f"envelope is not UTF-8 at byte {error.start}")
    except json_text.NotJsonError as error:
        reject(RejectReason.ENVELOPE, f"envelope is {error}")


def _envelope(outer: Any, default_rules: RecordRules, *, exact: bool) -> Envelope:
    message = outer.get("message") if type(outer) is dict else None
    if type(message) is not dict:
        reject(RejectReason.ENVELOPE, "envelope has no message object")
    ciphertext = message.get("dbObject")
    if type(ciphertext) is not str:
        reject(RejectReason.ENVELOPE, "message.dbObject is missing or not a string")
    encryption = message.get("encryption")
    if type(encryption) is not dict:
        reject(RejectReason.ENCRYPTION, "message.encryption is missing or not an object")
    key_encryption_key_id = encryption.get("keyEncryptionKeyId")
    encrypted_data_key = encryption.get("encryptedEncryptionKey")
    initialisation_vector = encryption.get("initialisationVector")
    if (
        type(key_encryption_key_id) is not str
        or type(encrypted_data_key) is not str
        or type(initialisation_vector) is not str
        or not (key_encryption_key_id and encrypted_data_key and initialisation_vector)
    ):
        _reject_materials(encryption)
    db, name = message.get("db"), message.get("collection")
    fields = (
        ciphertext,
        _new(KeyRef, (key_encryption_key_id, encrypted_data_key)),
        initialisation_vector,
        record_rules(db, name) if db and name else default_rules,
        _as_text(message.get("_lastModifiedDateTime"), exact=exact),
        _as_text(message.get("@type"), exact=exact),
    )
    return _new(Envelope, fields)


def _as_text(value: Any, *, exact: bool) -> str:
    if type(value) is float and not exact:
        raise _NotExactError
    return "" if value is None or isinstance(value, list | dict) else str(value)


def _reject_materials(encryption: dict[str, Any]) -> NoReturn:
    materials = ("keyEncryptionKeyId", "encryptedEncryptionKey", "initialisationVector")
    bad = [name for name in materials if type(encryption.get(name)) is not str or not encryption[name]]
    reject(RejectReason.ENCRYPTION, f"message.encryption: {', '.join(bad)} missing, empty or not a string")
