"""`cdi tables check`: whether a table definition can be used, and what it makes of a day that is published."""

from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from cdi_dagster.cli.console import facts, figures_table, json_option, print_json, progress_console, result_console
from cdi_dagster.cli.options import DayType, collection_option, given, published_root_option
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.table_definition import TableDefinition
from cdi_dagster.table_definitions import read_table_definition

if TYPE_CHECKING:
    from cdi_dagster.spark.tables.profile import DayProfile

_SHOWN_PATHS = 50


@click.command("check")
@click.argument("definition", metavar="DEFINITION")
@click.option(
    "--against",
    "storage_day",
    type=DayType(),
    metavar="YYYY-MM-DD",
    help="Storage day whose published records are read. Needs --collection.",
)
@collection_option(required=False)
@published_root_option()
@json_option
def check_command(
    definition: str, storage_day: date | None, collection: Collection | None, published_root: str | None, as_json: bool
) -> None:
    """Check the table definition at a path, file:// or s3:// URI; nothing is changed.

    With --against, read the published records of a day too, and show for each column how many values are null or not
    of its type, and which paths of the records no column takes: a field that the producer has added is there.
    """
    if (storage_day is None) != (collection is None):
        raise click.UsageError("--against and --collection belong together: give both, or neither.")
    found = read_table_definition(definition)
    profile = _profile(found, collection, storage_day, published_root) if collection and storage_day else None
    if as_json:
        print_json(_as_json(found, profile))
    else:
        _show(found, profile)


def _profile(
    definition: TableDefinition, collection: Collection, storage_day: date, published_root: str | None
) -> "DayProfile":
    from cdi_dagster.published.read import require_published_parts
    from cdi_dagster.settings import load_settings
    from cdi_dagster.spark.tables.profile import profile_day
    from cdi_dagster.storage import open_storage

    published = open_storage(load_settings(**given(published_root=published_root)).published_root)
    mark = require_published_parts(published, collection.on(storage_day))
    progress_console().print(f"Reading {mark.published:,} records of {collection.on(storage_day)}")
    return profile_day(published, mark, definition.managed.columns if definition.managed else ())


def _as_json(definition: TableDefinition, profile: "DayProfile | None") -> dict[str, Any]:
    against = None
    if profile:
        untaken = [{"path": path, "records": count} for path, count in profile.untaken.items()]
        against = {**asdict(profile), "untaken": untaken}
    return {
        "definition": definition.source,
        "sha256": definition.sha256,
        "tables": [
            {"name": table.name, "kind": table.kind, "columns": len(table.columns)} for table in definition.tables
        ],
        "against": against,
    }


def _show(definition: TableDefinition, profile: "DayProfile | None") -> None:
    console = result_console()
    tables = [(f"{table.kind}", f"{table.name}: {len(table.columns)} columns") for table in definition.tables]
    console.print(facts([("definition", f"{definition.source} can be used"), ("sha256", definition.sha256), *tables]))
    if profile is None:
        return
    columns = figures_table(
        f"Columns of {profile.records:,} records", ["column", "type", "null", "unparsable"], words=2
    )
    for column in profile.columns:
        unparsable = f"{column.unparsable:,}" if column.unparsable else ""
        columns.add_row(column.name, column.type, f"{column.nulls:,}", unparsable)
    console.print(columns)
    if not profile.untaken:
        console.print("Every path of the records is taken by a column.")
        return
    paths = figures_table("Paths that no column takes", ["path", "records"])
    for path, count in list(profile.untaken.items())[:_SHOWN_PATHS]:
        paths.add_row(escape(".".join(path)), f"{count:,}")
    console.print(paths)
    more = len(profile.untaken) - _SHOWN_PATHS
    if more > 0 or profile.beyond:
        at_least = "more than " if profile.beyond else ""
        console.print(f"... and {at_least}{max(more, 0):,} more paths (--json lists them)")
    if profile.unwalked:
        console.print(f"{profile.unwalked:,} records are nested too deeply to list their paths.")
