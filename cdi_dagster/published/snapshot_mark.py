"""The mark of a snapshot: the content of its `_SUCCESS`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from cdi_dagster.core.snapshot import SnapshotBase, SnapshotInput


@dataclass(frozen=True, kw_only=True)
class SnapshotPart:
    """One ORC file of rows.

    Attributes:
        key: below the published root, in the folder of its id_part.
        size_bytes: of the file.
    """

    key: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class SnapshotMark:
    """The content of a snapshot's `_SUCCESS`.

    Attributes:
        correlation_id: of the run that made it.
        collection_id: `db:name`.
        export_day: a Friday.
        fingerprint: of what it was made from; of an adopted one, of its files.
        made_from: base and days; None for one that was adopted from the old system.
        rows_in: rows of base and days, by `db_type`.
        rows: its own, by `db_type`.
        id_parts: its rows by id_part; empty for an adopted one, whose rows were not counted.
        parts: exactly the files to read.
        published_at: aware, UTC, in whole seconds.
        sampled_rows: how many rows were sampled for `modified`: those of some id_parts.
        modified: how many of these were last modified on each of the latest days.
    """

    correlation_id: str
    collection_id: str
    export_day: date
    fingerprint: str
    made_from: SnapshotInput | None
    rows_in: Mapping[str, int]
    rows: Mapping[str, int]
    id_parts: Mapping[str, int]
    parts: tuple[SnapshotPart, ...]
    published_at: datetime
    sampled_rows: int = 0
    modified: Mapping[date, int] = field(default_factory=dict)

    @property
    def published(self) -> int:
        """Rows; 0 for an adopted one, whose rows were not counted."""
        return sum(self.rows.values())

    @property
    def stored_bytes(self) -> int:
        """Of the files."""
        return sum(part.size_bytes for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Return the mark as plain JSON values; `from_json` reads it back."""
        used = self.made_from
        base = used.base if used else None
        return {
            "correlation_id": self.correlation_id,
            "collection": self.collection_id,
            "export_day": self.export_day.isoformat(),
            "fingerprint": self.fingerprint,
            "adopted": used is None,
            "base": {"export_day": base.export_day.isoformat(), "fingerprint": base.fingerprint} if base else None,
            "days": {day.isoformat(): identity for day, identity in used.days.items()} if used else {},
            "rows_in": dict(self.rows_in),
            "rows": dict(self.rows),
            "id_parts": dict(self.id_parts),
            "sampled_rows": self.sampled_rows,
            "modified": {day.isoformat(): count for day, count in self.modified.items()},
            "parts": [{"key": part.key, "size_bytes": part.size_bytes} for part in self.parts],
            "published_at": f"{self.published_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }

    def to_bytes(self) -> bytes:
        """Return the content of `_SUCCESS`."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SnapshotMark":
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is not a mark of a snapshot.
        """
        base = value["base"]
        made_from = SnapshotInput(
            base=SnapshotBase(export_day=date.fromisoformat(base["export_day"]), fingerprint=str(base["fingerprint"]))
            if base
            else None,
            days={date.fromisoformat(day): str(identity) for day, identity in value["days"].items()},
        )
        return cls(
            correlation_id=str(value["correlation_id"]),
            collection_id=str(value["collection"]),
            export_day=date.fromisoformat(value["export_day"]),
            fingerprint=str(value["fingerprint"]),
            made_from=None if value["adopted"] else made_from,
            rows_in=dict(value["rows_in"]),
            rows=dict(value["rows"]),
            id_parts=dict(value["id_parts"]),
            parts=tuple(
                SnapshotPart(key=str(each["key"]), size_bytes=int(each["size_bytes"])) for each in value["parts"]
            ),
            published_at=datetime.fromisoformat(value["published_at"]).astimezone(UTC),
            sampled_rows=int(value.get("sampled_rows", 0)),
            modified={date.fromisoformat(day): int(count) for day, count in value.get("modified", {}).items()},
        )
