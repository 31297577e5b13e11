"""The mark of a publication: the content of `_SUCCESS`, which downstream readers know too."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from cdi_dagster.core.days import export_day_of


@dataclass(frozen=True, kw_only=True)
class PublishedPart:
    """One object of published records.

    Attributes:
        key: below the published root.
        size_bytes: of the object.
        records: lines in it.
    """

    key: str
    size_bytes: int
    records: int


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What the published records were made from, and their counts and parts.

    Attributes:
        fingerprint: of the pinned input.
        correlation_id: of the run that published; its report and rejects are stored under this id.
        collection_id: `db:name`.
        storage_day: the partition.
        published: records.
        rejected: envelopes that were rejected.
        record_bytes: bytes of the records before compression, newlines included.
        published_bytes: bytes of the parts.
        parts: exactly the objects to read.
        published_at: aware, UTC, in whole seconds.
        replayed_from: correlation id of the publication whose rejects were replayed, where this is a replay.
        db_types: of a keyed collection, how many rows there are of each type.
    """

    fingerprint: str
    correlation_id: str
    collection_id: str
    storage_day: date
    published: int
    rejected: int
    record_bytes: int
    published_bytes: int
    parts: tuple[PublishedPart, ...]
    published_at: datetime
    replayed_from: str | None = None
    db_types: Mapping[str, int] | None = None

    @property
    def text_bytes(self) -> int:
        """Bytes of the records without their newlines."""
        return self.record_bytes - self.published

    def to_json(self) -> dict[str, Any]:
        """Return the mark as plain JSON values; `from_json` reads it back."""
        value: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "correlation_id": self.correlation_id,
            "collection": self.collection_id,
            "storage_day": self.storage_day.isoformat(),
            "export_day": export_day_of(self.storage_day).isoformat(),
            "published": self.published,
            "rejected": self.rejected,
            "record_bytes": self.record_bytes,
            "published_bytes": self.published_bytes,
            "parts": [{"key": part.key, "size_bytes": part.size_bytes, "records": part.records} for part in self.parts],
            "published_at": f"{self.published_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }
        if self.replayed_from:
            value["replayed_from"] = self.replayed_from
        if self.db_types is not None:
            value["db_types"] = dict(self.db_types)
        return value

    def to_bytes(self) -> bytes:
        """Return the content of `_SUCCESS`."""
        return json.dumps(self.to_json(), indent=1).encode()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Mark":
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is not a mark.
        """
        return cls(
            fingerprint=str(value["fingerprint"]),
            correlation_id=str(value["correlation_id"]),
            collection_id=str(value["collection"]),
            storage_day=date.fromisoformat(value["storage_day"]),
            published=int(value["published"]),
            rejected=int(value["rejected"]),
            record_bytes=int(value["record_bytes"]),
            published_bytes=int(value["published_bytes"]),
            parts=tuple(
                PublishedPart(key=str(part["key"]), size_bytes=int(part["size_bytes"]), records=int(part["records"]))
                for part in value["parts"]
            ),
            published_at=datetime.fromisoformat(value["published_at"]).astimezone(UTC),
            replayed_from=value.get("replayed_from"),
            db_types=value.get("db_types"),
        )
