"""Daily rows as the ingestion publishes them, generated histories, and a plain reference of a snapshot.

Only tests import this.
"""

import io
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import pyarrow as pa
from pyarrow import orc

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.days import storage_days_between
from cdi_dagster.core.storage_keys import SUCCESS_MARK, daily_rows_prefix, id_part_folder, id_part_of, snapshot_prefix
from cdi_dagster.published.mark import Mark, PublishedPart
from cdi_dagster.published.snapshots import snapshot_of
from cdi_dagster.storage import Storage

PARTS = find_collection("calculator:calculationParts")
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "db_type": pa.string(),
        "val": pa.string(),
        "kafka_partition": pa.int32(),
        "kafka_offset": pa.int64(),
    }
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One daily row."""

    id: str
    id_part: str
    db_type: str
    val: str
    day: date
    kafka_partition: int | None
    kafka_offset: int | None


def reference(rows: Iterable[Row]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return the snapshot of all rows, by id_part and id: db_type and val, by the rules of the contract alone."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row.id_part, row.id)
        if key not in best or _precedence(row) > _precedence(best[key]):
            best[key] = row
    return {key: (row.db_type, row.val) for key, row in best.items()}


def _precedence(row: Row) -> tuple[object, ...]:
    place = [-1 if part is None else part for part in (row.kafka_partition, row.kafka_offset)]
    return (row.db_type == "DELETE", row.day, *place, row.val.encode())


def history(seed: int, first: date, last: date, *, ids: int) -> list[Row]:
    """Return a history of ids: inserted, deleted, inserted again, on one day or several, some at one place in Kafka."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    days = storage_days_between(first, last)
    rows = []
    for number in range(ids):
        digits = f"{chance.getrandbits(64):016x}"
        kind = ', "type":"x"' if number % 7 == 0 else ""
        id_part = chance.choice(["00", "9f", "a/", " é", "}*"])
        for event in range(chance.choice([1, 1, 2, 2, 3, 6])):
            same_place, day = chance.random() < 0.1, chance.choice(days)
            blank = " " if number % 9 == 0 else ""  # as a record of the old system may have
            modified = f'{blank}{{"d_date":"{day}T10:00:00.000Z"}}'
            rows.append(
                Row(
                    id=f'{{"id":"{id_part}{digits[2:]}"{kind}}}',
                    id_part=id_part,
                    db_type=chance.choice(["INSERT", "INSERT", "DELETE"]),
                    val=f'{{"_lastModifiedDateTime":{modified},"event":{event},"n":{number}}}',
                    day=day,
                    kafka_partition=0 if same_place else chance.choice([0, 1, None]),
                    kafka_offset=7 if same_place else chance.choice([None, chance.randrange(5)]),
                )
            )
    return rows


def publish_rows(storage: Storage, day: date, rows: Sequence[Row], *, fingerprint: str = "f1") -> None:
    """Publish the rows of one storage day, in several files of an id_part where there are many rows."""
    of_day = PARTS.on(day)
    prefix = daily_rows_prefix(of_day)
    storage.delete([stored.key for stored in storage.list(prefix)])
    files: dict[str, list[Row]] = defaultdict(list)
    for number, row in enumerate(rows):
        files[f"{prefix}{id_part_folder(row.id_part)}part-{number // 40:05d}.orc"].append(row)
    parts = []
    for key, of_file in files.items():
        of_file.sort(key=lambda row: row.id.encode())
        columns = {name: [getattr(row, name) for row in of_file] for name in _SCHEMA.names}
        stored = storage.write(key, orc_bytes(pa.table(columns, schema=_SCHEMA)))
        parts.append(PublishedPart(key=key, size_bytes=stored.size_bytes, records=len(of_file)))
    mark = Mark(
        fingerprint=fingerprint,
        correlation_id="rows",
        collection_id=PARTS.id,
        storage_day=day,
        published=len(rows),
        rejected=0,
        record_bytes=0,
        published_bytes=sum(part.size_bytes for part in parts),
        parts=tuple(parts),
        published_at=datetime(2023, 6, 10, tzinfo=UTC),
    )
    storage.write(f"{prefix}{SUCCESS_MARK}", mark.to_bytes())


def publish_history(storage: Storage, rows: Iterable[Row], first: date, last: date) -> None:
    """Publish every storage day of a history, empty ones too."""
    by_day: Mapping[date, list[Row]] = defaultdict(list)
    for row in rows:
        by_day[row.day].append(row)
    for day in storage_days_between(first, last):
        publish_rows(storage, day, by_day[day])


def orc_bytes(table: pa.Table) -> bytes:
    """Return a table as an ORC file."""
    file = io.BytesIO()
    orc.write_table(table, file, compression="zlib")
    return file.getvalue()


def read_snapshot(storage: Storage, export_day: date) -> dict[tuple[str, str], tuple[str, str]]:
    """Return a published snapshot as `reference` does; fails where its order, columns or compression are not right."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    last: dict[str, bytes] = {}
    for stored in storage.list(snapshot_prefix(snapshot_of(PARTS, export_day))):
        id_part = id_part_of(stored.key)
        if id_part is None:
            assert stored.key.endswith(f"/{SUCCESS_MARK}"), stored.key
            continue
        file = orc.ORCFile(io.BytesIO(storage.read(stored.key)))
        assert file.compression == "ZLIB"
        assert file.schema.names == ["id", "db_type", "val"]
        for row in file.read().to_pylist():
            assert row["id"].encode() > last.get(id_part, b""), (
                f"{stored.key} is not sorted, or {row['id']} is there twice"
            )
            last[id_part] = row["id"].encode()
            found[id_part, row["id"]] = (row["db_type"], row["val"])
    return found
