"""The closing report of one run of `build_snapshot`: what was made of what, and which later snapshots it leaves stale.

Made by the Spark job, carried to the run page. Counts and names only, never content.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SnapshotReport:
    """The closing report.

    Attributes:
        correlation_id: of the run.
        collection_id: `db:name`.
        export_day: YYYY-MM-DD, a Friday.
        fingerprint: of base and days.
        base: export day of the base, YYYY-MM-DD, or None.
        days: storage days that were added to it, YYYY-MM-DD.
        rows_in: rows of base and days, by `db_type`.
        rows: of the snapshot, by `db_type`.
        id_parts: how many it has.
        files: how many.
        stored_bytes: of the files.
        stale_later: export days of later snapshots that were made of the one that this replaced.
        seconds: of the whole job, Spark's start not counted.
    """

    correlation_id: str
    collection_id: str
    export_day: str
    fingerprint: str
    base: str | None
    days: tuple[str, ...]
    rows_in: Mapping[str, int]
    rows: Mapping[str, int]
    id_parts: int
    files: int
    stored_bytes: int
    stale_later: tuple[str, ...]
    seconds: float

    @property
    def row_count(self) -> int:
        """Rows of the snapshot."""
        return sum(self.rows.values())

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values; `from_json` reads it back."""
        totals = {"rows": self.row_count, "rows_in": sum(self.rows_in.values()), "stored_bytes": self.stored_bytes}
        return {**asdict(self), "days": list(self.days), "stale_later": list(self.stale_later), "totals": totals}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SnapshotReport":
        """Read what `to_json` wrote, also a later version."""
        known = {each.name: value[each.name] for each in fields(cls)}
        return cls(**(known | {"days": tuple(known["days"]), "stale_later": tuple(known["stale_later"])}))
