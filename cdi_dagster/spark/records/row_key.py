"""What makes a record a row of a keyed collection: the id that its envelope states, and whether it is a DELETE.

An ordinary id is parsed by msgspec and written by orjson; any other by Python's `json`, as records are. Internal to
`records`.
"""

from typing import Any, NamedTuple

import msgspec
import orjson

from cdi_dagster.core.collections import DbType
from cdi_dagster.core.ingest_report import RejectReason
from cdi_dagster.spark.records import json_text
from cdi_dagster.spark.records.nesting import with_room_for_nesting
from cdi_dagster.spark.records.rejection import reject

ID_PART_LENGTH = 2
_REMOVED = "_removedDateTime"
_REMOVED_BYTES = _REMOVED.encode()


class RowKey(NamedTuple):
    """Where a row belongs.

    Attributes:
        id: `message._id` as canonical JSON.
        id_part: the first two characters of the `id` in it.
    """

    id: str
    id_part: str


class _Message(msgspec.Struct, gc=False):
    id: Any = msgspec.field(name="_id", default=None)


class _Line(msgspec.Struct, gc=False):
    message: _Message


_read = msgspec.json.Decoder(_Line).decode


def parse_row_key(line: bytes) -> RowKey:
    """Return the key of a line that `parse_envelope` has parsed.

    Raises:
        RejectedError: `envelope` where `_id.id` is not a text of two characters or more; `encoding` where the id cannot
            be written as UTF-8.
    """
    try:
        stated = _read(line).message.id
    except (msgspec.DecodeError, RecursionError):
        return _any(line)
    if type(stated) is not dict or not all(type(value) is str for value in stated.values()):
        return _any(line)
    return RowKey(orjson.dumps(stated, None, orjson.OPT_SORT_KEYS).decode(), _id_part(stated))


def _any(line: bytes) -> RowKey:
    return with_room_for_nesting(_exact, line)


def _exact(line: bytes) -> RowKey:
    try:
        stated = json_text.parse(line.decode("utf-8"))["message"].get("_id")
    except json_text.NotJsonError as error:  # nested deeper than the fast parsers count
        reject(RejectReason.ENVELOPE, f"envelope is {error}")
    id_part = _id_part(stated)
    text = json_text.write_canonical(stated)
    try:
        text.encode()
    except UnicodeEncodeError:
        reject(RejectReason.ENCODING, "message._id holds half of a surrogate pair and cannot be written as UTF-8")
    return RowKey(text, id_part)


def _id_part(stated: Any) -> str:
    text = stated.get("id") if type(stated) is dict else None
    if type(text) is not str or len(text) < ID_PART_LENGTH:
        reject(RejectReason.ENVELOPE, f"message._id.id is not a text of {ID_PART_LENGTH} characters or more")
    return text[:ID_PART_LENGTH]


def db_type_of(plaintext: bytes) -> DbType:
    """Return DELETE where the top level of a payload, which became a record, has `_removedDateTime`; else INSERT."""
    # No letter of the name is written as an escape where no escape of an ASCII character is there.
    if _REMOVED_BYTES not in plaintext and b"\\u00" not in plaintext:
        return DbType.INSERT
    try:
        payload = orjson.loads(plaintext)
    except orjson.JSONDecodeError:
        payload = with_room_for_nesting(json_text.parse, plaintext.decode("utf-8"))
    return DbType.DELETE if _REMOVED in payload else DbType.INSERT
