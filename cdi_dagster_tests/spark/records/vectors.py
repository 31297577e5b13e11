"""The golden records: read from `vectors/*records.jsonl`, and the key resolver that unwraps their data keys."""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cdi_dagster.spark.records.engine import BlockResult
from cdi_dagster.spark.records.keys import KeyRef

_FILES = ("records.jsonl", "equality_records.jsonl")
_FOLDER = Path(__file__).parents[2] / "vectors"


@dataclass(frozen=True, kw_only=True)
class Vector:
    """One golden record: `expected` is None where the envelope is rejected."""

    name: str
    group: str
    collection_id: str
    envelope: bytes
    expected: bytes | None
    reason: str | None


def read_vectors() -> list[Vector]:
    vectors = []
    for line in b"".join((_FOLDER / name).read_bytes() for name in _FILES).splitlines():
        row = json.loads(line)
        vectors.append(
            Vector(
                name=row["name"],
                group=row["group"],
                collection_id=f"{row['db']}:{row['collection']}",
                envelope=row["envelope"].encode("utf-8"),
                expected=None if row.get("rejected") else row["expected"].encode("utf-8"),
                reason=row.get("reason"),
            )
        )
    return vectors


@dataclass(frozen=True, kw_only=True)
class RowVector:
    """One golden row (id, id_part, db_type, record); `expected` is None where the envelope is rejected."""

    name: str
    envelope: bytes
    expected: tuple[str, str, str, bytes] | None
    reason: str | None


def read_row_vectors() -> list[RowVector]:
    rows = map(json.loads, (_FOLDER / "keyed_rows.jsonl").read_bytes().splitlines())
    return [
        RowVector(
            name=row["name"],
            envelope=row["envelope"].encode("utf-8"),
            expected=None
            if row.get("rejected")
            else (*(row["expected"][name] for name in ("id", "id_part", "db_type")), row["expected"]["val"].encode()),
            reason=row.get("reason"),
        )
        for row in rows
    ]


def rows_of(result: BlockResult) -> list[tuple[str, str, str, bytes]]:
    """The rows of a block, each as a golden row is."""
    records = result.records.split(b"\n")
    assert records.pop() == b""
    return [
        (row.key.id, row.key.id_part, str(row.db_type), record)
        for row, record in zip(result.rows, records, strict=True)
    ]


def unwrapped(encrypted_data_key: str) -> bytes | None:
    """Unwrap a data key as the STANDALONE profile does (its bytes reversed); None where it would answer 400."""
    try:
        return base64.b64decode(encrypted_data_key)[::-1]
    except ValueError:
        return None


class ReversedKeys:
    """A key resolver that records its calls."""

    def __init__(self, *, refused: Iterable[KeyRef] = ()) -> None:
        self.calls: list[set[KeyRef]] = []
        self._refused = set(refused)

    def data_keys(self, refs: Iterable[KeyRef]) -> Mapping[KeyRef, bytes | None]:
        requested = set(refs)
        self.calls.append(requested)
        return {ref: None if ref in self._refused else unwrapped(ref.encrypted_data_key) for ref in requested}
