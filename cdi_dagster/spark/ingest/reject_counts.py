"""Counts kept rejects by what explains them: reason, key of the key service, shape of the envelope, object.

Reads of an envelope only its key id and which of the usual fields it has: never a value, and no name that is not usual.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from cdi_dagster.core.ingest_report import RejectReason
from cdi_dagster.spark.ingest.rejects import StoredReject

_MOST_KEY_ID: Final = 200
_USUAL: Final = {
    "envelope": ("@type", "timestamp", "traceId", "unitOfWorkId", "version", "message"),
    "message": ("@type", "_id", "_lastModifiedDateTime", "collection", "db", "dbObject", "encryption"),
    "encryption": ("keyEncryptionKeyId", "encryptedEncryptionKey", "initialisationVector"),
}
_SOME_PRODUCERS: Final = "encryptionKeyId"


@dataclass(frozen=True, kw_only=True)
class RejectCounts:
    """How many rejects there are, by what may be their common cause; the most frequent first.

    Attributes:
        by_reason: reason family.
        by_key_id: key-encryption key of those that have one.
        by_shape: shape of the envelope (`producer_shape`).
        by_object: object, below the corporate root.
        key_ids_of_key_rejects: key-encryption key of those that the key service cannot decrypt.
    """

    by_reason: Counter[str] = field(default_factory=Counter)
    by_key_id: Counter[str] = field(default_factory=Counter)
    by_shape: Counter[str] = field(default_factory=Counter)
    by_object: Counter[str] = field(default_factory=Counter)
    key_ids_of_key_rejects: Counter[str] = field(default_factory=Counter)

    @property
    def key_to_restore(self) -> str | None:
        """The one key for which all rejects were rejected, where it is so."""
        ids = self.key_ids_of_key_rejects
        return next(iter(ids)) if len(ids) == 1 and ids.total() == self.by_reason.total() else None

    def add(self, reject: StoredReject) -> None:
        """Count one."""
        value = _parsed(reject.envelope)
        key_id = _key_id_of(value)
        self.by_reason[reject.reason] += 1
        self.by_object[reject.key] += 1
        self.by_shape[producer_shape(value) if reject.envelope is not None else "too long to be kept"] += 1
        if key_id:
            self.by_key_id[key_id] += 1
            if reject.reason == RejectReason.KEY:
                self.key_ids_of_key_rejects[key_id] += 1


def key_id_of_reject(reject: StoredReject) -> str | None:
    """Return the id of the key-encryption key that a reject's envelope names."""
    return _key_id_of(_parsed(reject.envelope))


def _key_id_of(envelope: Any) -> str | None:
    key_id = _object(_object(envelope, "message"), "encryption").get("keyEncryptionKeyId")
    return key_id[:_MOST_KEY_ID] if isinstance(key_id, str) and key_id else None


def producer_shape(envelope: Any) -> str:
    """Return which of the usual fields an envelope has: producers differ in them."""
    if not isinstance(envelope, dict):
        return "no JSON object"
    message = _object(envelope, "message")
    levels = {"envelope": envelope, "message": message, "encryption": _object(message, "encryption")}
    missing = [
        name if level == "envelope" else f"{level}.{name}"
        for level, names in _USUAL.items()
        for name in names
        if name not in levels[level]
    ]
    more = sum(name not in _USUAL[level] and name != _SOME_PRODUCERS for level in levels for name in levels[level])
    parts = [f"without {', '.join(missing)}"] if missing else ["usual fields"]
    if _SOME_PRODUCERS in levels["encryption"]:
        parts.append(f"with {_SOME_PRODUCERS}")
    if more:
        parts.append(f"{more} other fields")
    return ", ".join(parts)


def _parsed(envelope: bytes | None) -> Any:
    try:
        return orjson.loads(envelope or b"")
    except orjson.JSONDecodeError:
        return None


def _object(value: Any, name: str) -> Mapping[str, Any]:
    inner = value.get(name) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}
