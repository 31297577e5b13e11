"""A second opinion on what a record is: written from the record contract alone, slow, without a shortcut.

Standard library only, but for AES. It shares no code and no structure with `cdi_dagster.spark.records`: every step
makes new values instead of changing old ones, dates are taken apart by hand, and nesting is followed by hand as well.
"""

import base64
import json
import re
import sys
import threading
from calendar import monthrange
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

DEEPEST = 1024
KEYED = "calculator:calculationParts"


Made = TypeVar("Made")


class Refused(Exception):  # noqa: N818
    """The envelope is rejected, for the reason family in args[0]."""


def record_of(
    line: bytes, collection_id: str, unwrap: Callable[[str, str], bytes | None]
) -> tuple[bytes | None, str | None]:
    """Return (record, None), or (None, reason family) where the envelope is rejected."""
    return _with_room(lambda: _record(line, collection_id, unwrap))


def row_of(
    line: bytes, unwrap: Callable[[str, str], bytes | None]
) -> tuple[tuple[str, str, str, bytes] | None, str | None]:
    """Return (id, id_part, db_type and record, None), or (None, reason family) where the envelope is rejected."""
    return _with_room(lambda: _row(line, unwrap))


def _with_room(make: Callable[[], Made]) -> tuple[Made | None, str | None]:
    outcome: list[tuple[Made | None, str | None]] = []

    def work() -> None:
        try:
            outcome.append((make(), None))
        except Refused as refused:
            outcome.append((None, refused.args[0]))

    # Room for nesting and for long integers, which Python limits for reasons that are not ours.
    before = sys.getrecursionlimit(), sys.get_int_max_str_digits(), threading.stack_size(64 * 1024 * 1024)
    sys.setrecursionlimit(20 * DEEPEST)
    sys.set_int_max_str_digits(0)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(before[0])
        sys.set_int_max_str_digits(before[1])
        threading.stack_size(before[2])
    return outcome[0]


def _record(line: bytes, collection_id: str, unwrap: Callable[[str, str], bytes | None]) -> bytes:
    message = _message(line)
    materials = _materials(message)
    if collection_id == KEYED:
        _row_id(message)
    plaintext = _decrypted(message, materials, unwrap)
    db, name = message.get("db"), message.get("collection")
    if not (db and name):
        db, _, name = collection_id.partition(":")
    payload = _object(plaintext)
    if (db, name) == ("data", "businessAudit"):
        payload = _of_audit(payload, message)
    elif (db, name) == ("data", "equality"):
        payload = _of_equality(payload, message)
    text = json.dumps(_validated(payload))
    return _rewritten(_sanitised(text, db, name))


def _row(line: bytes, unwrap: Callable[[str, str], bytes | None]) -> tuple[str, str, str, bytes]:
    record = _record(line, KEYED, unwrap)
    message = _message(line)
    row_id, id_part = _row_id(message)
    payload = _object(_decrypted(message, _materials(message), unwrap))
    return row_id, id_part, "DELETE" if "_removedDateTime" in payload else "INSERT", record


def _row_id(message: Mapping[str, Any]) -> tuple[str, str]:
    stated = message.get("_id")
    if not isinstance(stated, dict) or not isinstance(stated.get("id"), str) or len(stated["id"]) < 2:
        raise Refused("envelope")
    text = json.dumps(stated, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused("encoding") from None
    return text, stated["id"][0] + stated["id"][1]


# --- envelope and decryption


def _message(line: bytes) -> dict[str, Any]:
    try:
        envelope = _json(line.decode("utf-8"))
    except (UnicodeDecodeError, ValueError):
        raise Refused("envelope") from None
    message = envelope.get("message") if isinstance(envelope, dict) else None
    if not isinstance(message, dict) or not isinstance(message.get("dbObject"), str):
        raise Refused("envelope")
    return message


def _materials(message: Mapping[str, Any]) -> list[Any]:
    materials = message.get("encryption")
    if not isinstance(materials, dict):
        raise Refused("encryption")
    names = ("keyEncryptionKeyId", "encryptedEncryptionKey", "initialisationVector")
    wanted: list[Any] = [materials.get(name) for name in names]
    if not all(isinstance(text, str) and text for text in wanted):
        raise Refused("encryption")
    return wanted


def _decrypted(message: Mapping[str, Any], wanted: list[Any], unwrap: Callable[[str, str], bytes | None]) -> str:
    data_key = unwrap(wanted[0], wanted[1])
    if data_key is None:
        raise Refused("key")
    if len(data_key) not in (16, 24, 32):
        raise Refused("encryption")
    try:
        vector = base64.b64decode(wanted[2])
        counter = int(vector.hex(), 16).to_bytes(16, "big")
    except (ValueError, OverflowError):
        raise Refused("encryption") from None
    try:
        ciphertext = base64.b64decode(message["dbObject"])
        return Cipher(algorithms.AES(data_key), modes.CTR(counter)).decryptor().update(ciphertext).decode("utf-8")
    except ValueError:
        raise Refused("ciphertext") from None


# --- JSON


def _json(text: str) -> Any:
    """Read JSON, character by character where it comes to nesting."""
    depth, in_string, escaped = 0, False, False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        if depth > DEEPEST:
            raise ValueError("too deep")
    return json.loads(text)


def _object(plaintext: str) -> dict[str, Any]:
    try:
        payload = _json(plaintext)
    except ValueError:
        raise Refused("payload") from None
    if not isinstance(payload, dict):
        raise Refused("payload")
    return payload


def _is_primitive(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


# --- transform


def _of_audit(payload: Mapping[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
    if not payload.get("context") or not isinstance(payload["context"], dict) or not payload.get("auditType"):
        raise Refused("audit")
    text = _stated(message, "_lastModifiedDateTime")
    return {**payload["context"], "AUDIT_EVENT": payload["auditType"], "TIME_STAMP": text, "TIME_STAMP_ORIG": text}


def _of_equality(payload: Mapping[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
    record = {**payload, "@type": _stated(message, "@type")}
    dates = (payload.get(name) for name in ("_lastModifiedDateTime", "_removedDateTime", "createdDateTime"))
    if not any(date.get("$date") if isinstance(date, dict) else date for date in dates):
        record["_lastModifiedDateTime"] = _stated(message, "_lastModifiedDateTime")
    return record


def _stated(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    return str(value) if _is_primitive(value) else ""


# --- validate


def _validated(record: Mapping[str, Any]) -> dict[str, Any]:
    stated = {**record, "_lastModifiedDateTime": {"$date": _utc(_last_modified(record))}}
    wrapped = {key: _wrapped(value) for key, value in stated.items()}
    if "_removedDateTime" in wrapped:
        wrapped = {key: value for key, value in wrapped.items() if key != "_archivedDateTime"}
    if _is_primitive(wrapped.get("_id")):
        wrapped["_id"] = {"$oid": str(wrapped["_id"])}
    return wrapped


def _last_modified(record: Mapping[str, Any]) -> Any:
    found = []
    for name in ("_lastModifiedDateTime", "_removedDateTime", "createdDateTime"):
        value = record.get(name)
        found.append(value.get("$date") if isinstance(value, dict) else value)
    return next(filter(None, found), "1980-01-01T00:00:00.000Z")


def _wrapped(value: Any) -> Any:
    """Return the value of a member of an object with its dates wrapped."""
    if isinstance(value, dict) and list(value) == ["$date"] and value["$date"] and _is_primitive(value["$date"]):
        return {"$date": _utc(value["$date"])}
    return _wrapped_item(value)


def _wrapped_item(value: Any) -> Any:
    """Return an item of a list (or what is left of a member) with its dates wrapped."""
    if isinstance(value, dict):
        copy = {}
        for key, member in value.items():
            copy[key] = _wrapped(member)
        return copy
    if isinstance(value, list):
        items = []
        for item in value:
            items.append(_wrapped_item(item))  # noqa: PERF401
        return items
    if isinstance(value, str) and re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|\+\d{4})$", value):
        return {"$date": _utc(value)}
    return value


# What strptime takes for "%Y-%m-%dT%H:%M:%S.%f%z", spelled out.
_PARTS = re.compile(
    r"(?P<year>\d\d\d\d)-(?P<month>1[0-2]|0[1-9]|[1-9])-(?P<day>3[0-1]|[1-2]\d|0[1-9]|[1-9]| [1-9])T"
    r"(?P<hour>2[0-3]|[0-1]\d|\d):(?P<minute>[0-5]\d|\d):(?P<second>6[0-1]|[0-5]\d|\d)\.(?P<fraction>[0-9]{1,6})"
    r"(?:(?P<sign>[+-])(?P<off_h>\d\d):?(?P<off_m>[0-5]\d)(?::?(?P<off_s>[0-5]\d)(?:\.(?P<off_f>\d{1,6}))?)?|(?-i:Z))",
    re.IGNORECASE,
)


def _utc(date: Any) -> str:
    found = _PARTS.fullmatch(date) if isinstance(date, str) else None
    if found is None:
        raise Refused("date")
    year, month, day, hour, minute, second = (
        int(found[name]) for name in ("year", "month", "day", "hour", "minute", "second")
    )
    if year < 1 or day > monthrange(year, month)[1] or second > 59:
        raise Refused("date")
    micros = int(found["fraction"].ljust(6, "0"))
    offset = timedelta(0)
    if found["sign"]:
        if found["off_s"] and (":" in found[0][20:]) and found[0].count(":") not in (2, 4):
            raise Refused("date")  # colons everywhere in the offset, or nowhere
        offset = timedelta(
            hours=int(found["off_h"]),
            minutes=int(found["off_m"]),
            seconds=int(found["off_s"] or 0),
            microseconds=int((found["off_f"] or "").ljust(6, "0")),
        )
        if offset >= timedelta(days=1):
            raise Refused("date")
        offset = -offset if found["sign"] == "-" else offset
    try:
        moment = datetime(year, month, day, hour, minute, second, micros) - offset  # noqa: DTZ001
    except OverflowError:
        raise Refused("date") from None
    day_text = f"{moment.year}-{moment.month:02}-{moment.day:02}"
    return f"{day_text}T{moment.hour:02}:{moment.minute:02}:{moment.second:02}.{moment.microsecond // 1000:03}Z"


# --- sanitise and canonical form


def _sanitised(text: str, db: Any, name: Any) -> str:
    if f"{db}:{name}" in (
        "penalties-and-deductions:sanction",
        "core:healthAndDisabilityDeclaration",
        "accepted-data:healthAndDisabilityCircumstances",
    ):
        text = re.sub(r"(?<!\\)\\[r|n]", "", text)
    for old, new in (
        ("$", "d_"),
        ("\\u0000", ""),
        ("_archivedDateTime", "_removedDateTime"),
        ("_archived", "_removed"),
    ):
        text = new.join(text.split(old))
    return text


def _rewritten(text: str) -> bytes:
    try:
        value = _json(text)
    except ValueError:
        raise Refused("payload") from None
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise Refused("encoding") from None
