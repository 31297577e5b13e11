"""The coalescer's marker of one collection and storage day: its public state.

One small JSON object, replaced by compare and swap only (`claim`). A sharded day has an entry for each shard in it.
`coalescer_status.marker_status` reads it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cdi_dagster.coalescer.shard import Shard
from cdi_dagster.storage.interface import (
    ObjectChangedError,
    ObjectMissingError,
    Storage,
    StorageError,
)

_READ_ATTEMPTS = 20
_PLAIN_FIELDS = ("objects", "bytes", "offsets", "fingerprint", "reason", "share_done")


class MarkerState(StrEnum):
    """The coalescer's state."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"


class InvalidMarkerError(ValueError):
    """The object is not a marker; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Marker:
    """The coalescer's published state, of a whole day or of one shard.

    Attributes:
        state: RUNNING, COMPLETE or FAILED.
        started_at: when this run began (aware, UTC, as are all times here).
        heartbeat_at: its latest heartbeat.
        writer: `host:pid#run` of the process.
        completed_at: when it ended, COMPLETE or FAILED.
        objects: objects of the day when it ended.
        bytes: their compressed bytes.
        offsets: the offsets that their names state, summed.
        fingerprint: `core.listing.listing_fingerprint` of the day when it ended.
        reason: why it failed.
        share_done: how much of the work was done at the heartbeat, 0 to 1; None where that is not known.
        shards: of a sharded day, the marker of each, None where it has not started; the rest is then `of_shards` of it.
    """

    state: MarkerState
    started_at: datetime
    heartbeat_at: datetime
    writer: str
    completed_at: datetime | None = None
    objects: int | None = None
    bytes: int | None = None
    offsets: int | None = None
    fingerprint: str | None = None
    reason: str | None = None
    share_done: float | None = None
    shards: tuple["Marker | None", ...] = ()

    @property
    def count(self) -> int:
        """How many shards there are: 1 where the day is not sharded."""
        return len(self.shards) or 1

    def of(self, shard: Shard) -> "Marker | None":
        """Return the marker of a shard: None where it has not started, or the day is not in shards of that count."""
        if shard.count != self.count:
            return None
        return self.shards[shard.index] if self.shards else self

    def claims(self) -> list[tuple[Shard, "Marker"]]:
        """Return the shards that have started, with their markers; an unsharded day is one."""
        shards = [Shard(index=index, count=self.count) for index in range(self.count)]
        return [(shard, marker) for shard in shards if (marker := self.of(shard))]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; `from_json` reads it back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        shards = [shard and shard.to_json() for shard in values.pop("shards")]
        plain = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
        return plain | ({"shards": shards} if shards else {})

    @classmethod
    def from_json(cls, value: Any) -> "Marker":
        """Read what `to_json` wrote; fields that this version does not know are ignored.

        Raises:
            InvalidMarkerError: it is not a marker.
        """
        try:
            return cls(
                state=MarkerState(value["state"]),
                started_at=_moment(value["started_at"]),
                heartbeat_at=_moment(value["heartbeat_at"]),
                completed_at=_moment(value["completed_at"]) if value.get("completed_at") else None,
                writer=str(value["writer"]),
                shards=tuple(shard and cls.from_json(shard) for shard in value.get("shards", ())),
                **{name: value.get(name) for name in _PLAIN_FIELDS},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidMarkerError(f"{type(error).__name__}: {error}") from error


def of_shards(shards: Sequence[Marker | None]) -> Marker:
    """Return the marker of a sharded day, of which one shard has started at least.

    RUNNING while a shard runs or has not started, FAILED where one failed, COMPLETE when all are. Whoever knows no
    shards takes it for that of a whole day, without a fingerprint.
    """
    started = [shard for shard in shards if shard]
    latest = max(started, key=lambda shard: shard.heartbeat_at)
    states = {shard.state for shard in started}
    if MarkerState.RUNNING in states or (len(started) < len(shards) and MarkerState.FAILED not in states):
        state = MarkerState.RUNNING
    else:
        state = MarkerState.FAILED if MarkerState.FAILED in states else MarkerState.COMPLETE
    reasons = [
        f"shard {index}/{len(shards)}: {shard.reason}"
        for index, shard in enumerate(shards)
        if shard and shard.state is MarkerState.FAILED
    ]
    return Marker(
        state=state,
        started_at=min(shard.started_at for shard in started),
        heartbeat_at=latest.heartbeat_at,
        writer=latest.writer,
        completed_at=None if state is MarkerState.RUNNING else latest.heartbeat_at,
        objects=sum(shard.objects or 0 for shard in started),
        bytes=sum(shard.bytes or 0 for shard in started),
        offsets=sum(shard.offsets or 0 for shard in started),
        reason=reasons[0] if reasons else None,
        shards=tuple(shards),
    )


def with_shard(day: Marker | None, shard: Shard, marker: Marker) -> Marker:
    """Return the day's marker once a shard has another one; what is there of shards of another count is dropped."""
    if shard.is_whole:
        return marker
    shards: list[Marker | None] = list(day.shards) if day and day.count == shard.count else [None] * shard.count
    shards[shard.index] = marker
    return of_shards(shards)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)


def read_marker(storage: Storage, key: str) -> tuple[Marker, str] | None:
    """Return the marker and its ETag, or None where there is none.

    Raises:
        InvalidMarkerError: the object is no marker.
        StorageError: it cannot be read.
    """
    for _ in range(_READ_ATTEMPTS):
        stored = storage.head(key)
        if stored is None:
            return None
        try:
            with storage.open(key, etag=stored.etag) as stream:
                content = stream.read()
        except (ObjectChangedError, ObjectMissingError):
            continue  # its writer replaced it between the two calls
        try:
            return Marker.from_json(json.loads(content)), stored.etag
        except ValueError as error:
            raise InvalidMarkerError(f"{storage.uri(key)} is not a coalescer marker ({error})") from error
    raise StorageError(f"{storage.uri(key)} changed during each of {_READ_ATTEMPTS} reads: try again.")


def marker_content(marker: Marker) -> bytes:
    """Return the bytes that `read_marker` reads."""
    return json.dumps(marker.to_json(), indent=1).encode()
