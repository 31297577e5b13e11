"""The record contract, step by step, without optimisation: this module defines a record.

Standard library only. `fast` gives the same bytes for ordinary payloads and leaves the others to this module.
Internal to `records`.
"""

import re
from typing import Any

from cdi_dagster.core.collections import RecordRules, Transform
from cdi_dagster.core.ingest_report import RejectReason
from cdi_dagster.spark.records import json_text
from cdi_dagster.spark.records.dates import EPOCH, is_date_shaped, to_utc_text
from cdi_dagster.spark.records.nesting import with_room_for_nesting
from cdi_dagster.spark.records.rejection import reject

_LAST_MODIFIED = "_lastModifiedDateTime"
_REMOVED = "_removedDateTime"
_ARCHIVED = "_archivedDateTime"
_LINE_BREAK_ESCAPE = re.compile(r"(?<!\\)\\[r|n]")


def make_record(plaintext: bytes, modified: str, event_type: str, rules: RecordRules) -> bytes:
    """Return the canonical record of one decrypted payload.

    Args:
        plaintext: the decrypted dbObject.
        modified: the envelope's last modified date as text.
        event_type: the envelope's `@type` as text.
        rules: of its collection.

    Raises:
        RejectedError: `ciphertext`, `payload`, `audit`, `date` or `encoding`.
    """
    return with_room_for_nesting(_make_record, plaintext, modified, event_type, rules)


def _make_record(plaintext: bytes, modified: str, event_type: str, rules: RecordRules) -> bytes:
    record = _parse_payload(plaintext)
    unless_stated = EPOCH
    if rules.transform is Transform.AUDIT:
        record = _audit_context(record, modified)
    elif rules.transform is Transform.EQUALITY:
        record["@type"] = event_type
        unless_stated = modified or EPOCH
    _validate(record, unless_stated)
    return _canonical(_sanitise(json_text.write_ascii(record), rules))


def _parse_payload(plaintext: bytes) -> dict[str, Any]:
    try:
        payload = json_text.parse(plaintext.decode("utf-8"))
    except UnicodeDecodeError as error:
        reject(RejectReason.CIPHERTEXT, f"payload is not UTF-8 at byte {error.start}")
    except json_text.NotJsonError as error:
        reject(RejectReason.PAYLOAD, f"payload is {error}")
    if not isinstance(payload, dict):
        reject(RejectReason.PAYLOAD, "payload is not an object")
    return payload


def _audit_context(payload: dict[str, Any], modified: str) -> dict[str, Any]:
    """Return the context of an audit payload, stamped with its type and time."""
    context, audit_type = payload.get("context"), payload.get("auditType")
    if not isinstance(context, dict) or not context:
        reject(RejectReason.AUDIT, "context is missing, empty or not an object")
    if not audit_type:
        reject(RejectReason.AUDIT, "auditType is missing or empty")
    context["AUDIT_EVENT"] = audit_type
    context["TIME_STAMP"] = modified
    context["TIME_STAMP_ORIG"] = modified
    return context


def _validate(record: dict[str, Any], unless_stated: str) -> None:
    """Write the last modified date, wrap every date and a primitive id."""
    try:
        record[_LAST_MODIFIED] = {"$date": to_utc_text(_last_modified(record, unless_stated))}
        _wrap_dates(record)
    except ValueError:
        # Not which one: the name of a field is payload too.
        reject(RejectReason.DATE, "a date does not parse or does not exist")
    if _REMOVED in record:
        record.pop(_ARCHIVED, None)
    record_id = record.get("_id")
    if record_id is not None and not isinstance(record_id, dict | list):
        record["_id"] = {"$oid": str(record_id)}


def _last_modified(record: dict[str, Any], unless_stated: str) -> Any:
    for name in (_LAST_MODIFIED, _REMOVED, "createdDateTime"):
        stated = record.get(name)
        if isinstance(stated, dict):
            stated = stated.get("$date")
        if stated:
            return stated
    return unless_stated


def _wrap_dates(container: dict[str, Any] | list[Any]) -> None:
    """Wrap every date string at any depth, and reformat the `$date` objects that are members of an object."""
    in_object = isinstance(container, dict)
    members: Any = container.items() if isinstance(container, dict) else enumerate(container)
    for index, value in members:
        if isinstance(value, str):
            if is_date_shaped(value):
                container[index] = {"$date": to_utc_text(value)}
        elif in_object and _is_date_object(value):
            value["$date"] = to_utc_text(value["$date"])
        elif isinstance(value, dict | list):
            _wrap_dates(value)


def _is_date_object(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) != 1:
        return False
    date = value.get("$date")
    return bool(date) and not isinstance(date, dict | list)


def _sanitise(text: str, rules: RecordRules) -> str:
    """Replace what downstream cannot read, in the ASCII-escaped text, in keys and escapes alike."""
    if rules.drops_line_breaks:
        text = _LINE_BREAK_ESCAPE.sub("", text)
    return (
        text.replace("$", "d_")
        .replace("\\u0000", "")
        .replace("_archivedDateTime", "_removedDateTime")
        .replace("_archived", "_removed")
    )


def _canonical(text: str) -> bytes:
    try:
        return json_text.write_canonical(json_text.parse(text)).encode("utf-8")
    except json_text.NotJsonError as error:
        # A literal backslash before u0000 loses its pair.
        reject(RejectReason.PAYLOAD, f"sanitised payload is {error}")
    except UnicodeEncodeError:
        reject(RejectReason.ENCODING, "record holds half of a surrogate pair and cannot be written as UTF-8")
