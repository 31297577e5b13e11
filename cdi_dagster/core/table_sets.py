"""The members of each table set, by the names that people and asset keys use.

Columns and SQL are configuration of the Spark job (`cdi_dagster.spark.tables`); a test compares the names of both.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cdi_dagster.core.collections import Collection


@dataclass(frozen=True, kw_only=True)
class TableMember:
    """One table or view of a table set.

    Attributes:
        kind: its name in the Spark job: raw, managed, secured or redacted.
        database: Hive database.
        name: table or view name; also the last part of its asset key.
        grain: what one row is, in a sentence.
        about: what it is for.
        over: kind of the table it is a view over, or None where it is made from the daily records.
    """

    kind: str
    database: str
    name: str
    grain: str
    about: str
    over: str | None = None


TABLE_SETS: Mapping[str, tuple[TableMember, ...]] = {
    "audit": (
        TableMember(
            kind="raw",
            database="uc_dw_auditlog",
            name="auditlog_raw",
            grain="One row per audit message, as one JSON text.",
            about="Every daily record exactly as it was published, in the column `val`.",
        ),
        TableMember(
            kind="managed",
            database="uc_dw_auditlog",
            name="auditlog_managed",
            grain="One row per audit message, in typed columns.",
            about="The configured columns of every daily record.",
        ),
        TableMember(
            kind="secured",
            database="uc",
            name="auditlog_sec_v",
            grain="One row per audit message.",
            about="View for people who are cleared to see personal data.",
            over="managed",
        ),
        TableMember(
            kind="redacted",
            database="uc",
            name="auditlog_red_v",
            grain="One row per audit message.",
            about="View for everybody else: sensitive columns masked, hashed or left out.",
            over="managed",
        ),
    ),
}


def table_kinds(collection: Collection) -> tuple[str, ...]:
    """Return the kinds of all tables and views of a collection; none where only files are published."""
    return tuple(member.kind for member in TABLE_SETS[collection.tables]) if collection.tables else ()
