"""Reads kept rejects back: their reasons and locations, and the envelopes to try again.

The counterpart of `writing.reject_line`. An envelope is still encrypted here, so nothing of it is ever shown.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from isal import igzip

from cdi_dagster.core.storage_keys import SUCCESS_MARK
from cdi_dagster.storage import Storage


@dataclass(frozen=True, kw_only=True)
class StoredReject:
    """One kept reject.

    Attributes:
        reason: reason family.
        detail: what is wrong, without payload.
        key: object it came from, below the corporate root.
        line_number: line in that object, from 1.
        offset: Kafka offset, where known.
        envelope: as it was stored; None where it was too long to be kept.
        line: the reject as it was kept.
    """

    reason: str
    detail: str
    key: str
    line_number: int
    offset: int | None
    envelope: bytes | None
    line: Mapping[str, Any]


def stored_rejects(published: Storage, prefix: str | None) -> Iterator[StoredReject]:
    """Yield the rejects of a run, in the order they were written; none where there is no prefix."""
    if prefix is None:
        return
    for stored in list(published.list(prefix)):
        if stored.key.endswith(f"/{SUCCESS_MARK}"):
            continue
        with published.open(stored.key, etag=stored.etag) as source, igzip.open(source) as lines:
            for line in lines:
                yield _reject(orjson.loads(line))


def _reject(line: Mapping[str, Any]) -> StoredReject:
    envelope = None
    if "envelope" in line:
        envelope = line["envelope"].encode()
    elif "envelope_base64" in line:
        envelope = base64.b64decode(line["envelope_base64"])
    return StoredReject(
        reason=line["reason"],
        detail=line["detail"],
        key=line["key"],
        line_number=line["line_number"],
        offset=line["offset"],
        envelope=envelope,
        line=line,
    )
