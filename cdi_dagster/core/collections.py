"""The registry of collections: their names, where K2HB writes them, what is published of them.

Adding a collection is one entry in `REGISTRY`; assets, jobs, schedules and the terminal read it. A collection that
is not in the registry can still be ingested on request, as append-only, from `ucfs_main`.
"""

import re
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from enum import StrEnum

from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.table_definition import TableDefinition

CORPORATE_STORAGE = "corporate_storage/"
"""Below it, under the corporate root, K2HB writes."""

_COLLECTION_ID = re.compile(r"(?P<db>[A-Za-z0-9][A-Za-z0-9_-]*):(?P<name>[A-Za-z0-9][A-Za-z0-9_-]*)")


class StorageGroup(StrEnum):
    """The part of corporate storage that one K2HB consumer writes and one coalescer merges."""

    AUDIT = "ucfs_audit"
    EQUALITIES = "ucfs_equalities"
    MAIN = "ucfs_main"


class CollectionKind(StrEnum):
    """How the change events of a collection add up."""

    APPEND_ONLY = "append_only"
    """Every event is a record of its own."""
    KEYED = "keyed"
    """An INSERT, then maybe a DELETE, per id: every event is a row under its id."""


class DbType(StrEnum):
    """What an event of a keyed collection does to its id."""

    INSERT = "INSERT"
    DELETE = "DELETE"


@dataclass(frozen=True, kw_only=True)
class Collection:
    """One `db:name` of change events.

    Attributes:
        db: database as K2HB writes it, hyphens kept (`accepted-data`).
        name: collection name, case kept (`businessAudit`).
        group: where K2HB writes it.
        kind: how its events add up.
        asset_name: snake case name of its assets in Dagster.
        tables: the tables published of it, where `cdi_dagster.table_definitions` has added them; the registry and
            `find_collection` do not know them. None: only files. Does not count in comparisons.
        snapshot_tables: likewise, the tables made from its snapshots; of keyed collections only.
    """

    db: str
    name: str
    group: StorageGroup
    kind: CollectionKind
    asset_name: str
    tables: TableDefinition | None = field(default=None, compare=False, repr=False)
    snapshot_tables: TableDefinition | None = field(default=None, compare=False, repr=False)

    @property
    def id(self) -> str:
        """`db:name`, the form used in settings, commands and status rows."""
        return f"{self.db}:{self.name}"

    @property
    def is_keyed(self) -> bool:
        """Whether its events are rows under an id."""
        return self.kind is CollectionKind.KEYED

    @property
    def output_name(self) -> str:
        """What a day of it is published as: the second part of the asset's key."""
        return "daily_rows" if self.is_keyed else "daily_records"

    @property
    def topic(self) -> str:
        """The Kafka topic, which starts every object name."""
        if self.db == "data":
            return f"{self.db}.{self.name}"
        return f"db.{self.db}.{self.name}"

    @property
    def table_names(self) -> tuple[str, ...]:
        """`database.name` of every table and view of a day; none where only files are published."""
        return tuple(table.name for table in self.tables.tables) if self.tables else ()

    @property
    def snapshot_table_names(self) -> tuple[str, ...]:
        """`database.name` of every table of its snapshots."""
        return tuple(table.name for table in self.snapshot_tables.tables) if self.snapshot_tables else ()

    def on(self, storage_day: date) -> "CollectionDay":
        """Return one storage day of this collection."""
        return CollectionDay(collection=self, storage_day=storage_day)


@dataclass(frozen=True, kw_only=True)
class CollectionDay:
    """One storage day of one collection: what a partition is.

    Attributes:
        collection: whose day.
        storage_day: the UTC day under whose prefix K2HB wrote.
    """

    collection: Collection
    storage_day: date

    @property
    def export_day(self) -> date:
        """The day after: the date in every output."""
        return export_day_of(self.storage_day)

    @property
    def corporate_prefix(self) -> str:
        """The prefix under the corporate root that holds the day's objects."""
        collection = self.collection
        return f"{CORPORATE_STORAGE}{collection.group}/{self.storage_day:%Y/%m/%d}/{collection.db}/{collection.name}/"

    def __str__(self) -> str:
        return f"{self.collection.id}, storage day {self.storage_day} (export day {self.export_day})"


REGISTRY: tuple[Collection, ...] = (
    Collection(
        db="data",
        name="businessAudit",
        group=StorageGroup.AUDIT,
        kind=CollectionKind.APPEND_ONLY,
        asset_name="business_audit",
    ),
    Collection(
        db="data",
        name="equality",
        group=StorageGroup.EQUALITIES,
        kind=CollectionKind.APPEND_ONLY,
        asset_name="equality",
    ),
    Collection(
        db="calculator",
        name="calculationParts",
        group=StorageGroup.MAIN,
        kind=CollectionKind.KEYED,
        asset_name="calculation_parts",
    ),
)


class Transform(StrEnum):
    """What of an envelope becomes the record."""

    PAYLOAD = "payload"
    """The payload as it is."""
    AUDIT = "audit"
    """The `context` of the payload, stamped with the audit type and the envelope's last modified date."""
    EQUALITY = "equality"
    """The payload, stamped with the envelope's `@type`; the envelope's last modified date where it has none itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordRules:
    """What is special about the records of one collection (`cdi_dagster.spark.records` applies it).

    Attributes:
        transform: what of an envelope becomes the record.
        drops_line_breaks: the escapes of line breaks are dropped from the text, as the exporter before this one did.
    """

    transform: Transform = Transform.PAYLOAD
    drops_line_breaks: bool = False


ORDINARY_RECORDS = RecordRules()
_RECORD_RULES = {
    ("data", "businessAudit"): RecordRules(transform=Transform.AUDIT),
    ("data", "equality"): RecordRules(transform=Transform.EQUALITY),
    ("penalties-and-deductions", "sanction"): RecordRules(drops_line_breaks=True),
    ("core", "healthAndDisabilityDeclaration"): RecordRules(drops_line_breaks=True),
    ("accepted-data", "healthAndDisabilityCircumstances"): RecordRules(drops_line_breaks=True),
}


def record_rules(db: object, name: object) -> RecordRules:
    """Return the rules for a db and collection as an envelope may state them (any JSON value)."""
    return _RECORD_RULES.get((db, name), ORDINARY_RECORDS) if type(db) is type(name) is str else ORDINARY_RECORDS


_BY_ID = {collection.id: collection for collection in REGISTRY}
_LETTERS = re.compile(r"[^a-z0-9:]")


def ids_beginning_with(typed: str) -> list[str]:
    """Return the registered ids that begin with a text, without regard to case."""
    return [each.id for each in REGISTRY if each.id.lower().startswith(typed.lower())]


def find_collection(collection_id: str) -> Collection:
    """Return the registered collection, or an append-only one of `ucfs_main` where it is not registered.

    Raises:
        CdiError: INPUT_INVALID where the text is not of the form `db:name`.
    """
    registered = _BY_ID.get(collection_id)
    if registered:
        return registered
    match = _COLLECTION_ID.fullmatch(collection_id)
    if match is None:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{collection_id!r} is not a collection: write it as db:name, for example data:businessAudit",
        )
    db, name = match["db"], match["name"]
    return Collection(
        db=db,
        name=name,
        group=StorageGroup.MAIN,
        kind=CollectionKind.APPEND_ONLY,
        asset_name=_snake_case(f"{db}_{name}"),
    )


def near_miss(collection_id: str) -> str | None:
    """Return the registered id that an unregistered one is probably meant to be, or None."""
    by_letters = {_LETTERS.sub("", registered.lower()): registered for registered in _BY_ID}
    close = get_close_matches(_LETTERS.sub("", collection_id.lower()), by_letters, n=1, cutoff=0.9)
    return by_letters[close[0]] if close and collection_id not in _BY_ID else None


def require_append_only(collection: Collection) -> None:
    """Return where the collection is append-only: only those have tables of a day's records.

    Raises:
        CdiError: INPUT_INVALID where it is keyed.
    """
    if collection.is_keyed:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{collection.id} is a keyed collection (an INSERT, then maybe a DELETE, per id): a day of it is published "
            "as rows, and no tables are made of one day.",
            next_step="Read its daily rows, or choose an append-only collection, for example data:businessAudit.",
        )


def require_keyed(collection: Collection) -> None:
    """Return where the collection is keyed: only those have snapshots.

    Raises:
        CdiError: INPUT_INVALID where it is append-only.
    """
    if not collection.is_keyed:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{collection.id} is append-only: there are snapshots of keyed collections only.",
            next_step="Choose a keyed collection, for example calculator:calculationParts.",
        )


def _snake_case(text: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text).replace("-", "_").lower()
