"""The closing report of the tables of one day: what was published where, and how much.

Made by the Spark job, carried to the run page. Counts and locations only, never content.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

_RENAMED = {"table_config": "definition", "table_config_sha256": "definition_sha256"}
"""Fields that reports of earlier versions have under another name."""


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One partition of a table, or a view as it shows that partition.

    Attributes:
        kind: raw, managed, view or table (`table_definition.TableKind`).
        name: `database.name`.
        rows: rows of the partition.
        columns: columns, the partition column not counted.
        seconds: how long it took, reading back included.
        location: URI of the partition's files; None for a view.
        stored_bytes: of the files; 0 for a view.
        files: how many; 0 for a view.
        unparsable: values that are null because they are not of their column's type, by column.
        action: `replaced` for a table; `created`, `changed` or `unchanged` for a view.
    """

    kind: str
    name: str
    rows: int
    columns: int
    seconds: float
    location: str | None = None
    stored_bytes: int = 0
    files: int = 0
    unparsable: Mapping[str, int] = field(default_factory=dict)
    action: str = "replaced"


@dataclass(frozen=True, kw_only=True)
class TablesReport:
    """The closing report of one run of `publish_tables`.

    Attributes:
        correlation_id: of the run.
        collection_id: `db:name`.
        storage_day: YYYY-MM-DD.
        export_day: YYYY-MM-DD, the partition's `date_str`.
        fingerprint: of the pinned input from which the daily records were made.
        records: daily records, by their mark.
        definition: URI of the definition that the job read.
        definition_sha256: of its text.
        tables: in the order published.
        seconds: of the whole job, the session's start not counted.
        defined: `database.name` of all tables that the definition has, published or not; empty in reports of
            earlier versions.
        slow_records: records whose values were taken from their text, because the JSON parser refuses them.
    """

    correlation_id: str
    collection_id: str
    storage_day: str
    export_day: str
    fingerprint: str
    records: int
    definition: str
    definition_sha256: str
    tables: tuple[PublishedTable, ...]
    seconds: float
    defined: tuple[str, ...] = ()
    slow_records: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values; `from_json` reads it back."""
        totals = {
            "tables": len(self.tables),
            "records": self.records,
            "stored_bytes": sum(table.stored_bytes for table in self.tables),
            "unparsable": sum(sum(table.unparsable.values()) for table in self.tables),
        }
        return {**asdict(self), "tables": [asdict(table) for table in self.tables], "totals": totals}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TablesReport":
        """Read what `to_json` wrote, earlier and later versions too; the totals are counted again, not trusted."""
        renamed = {_RENAMED.get(name, name): part for name, part in value.items()}
        parts = {
            "tables": tuple(PublishedTable(**_known(PublishedTable, row)) for row in value["tables"]),
            "defined": tuple(value.get("defined", ())),
        }
        return cls(**(_known(cls, renamed) | parts))


def _known(of: type, value: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(of)}
    return {name: part for name, part in value.items() if name in names}
