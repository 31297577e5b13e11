"""Options that several commands share, and what they become: validated values, settings, storages.

An option that was not given falls back to the settings, so that a configured installation needs few of them.
"""

import re
from collections.abc import Callable
from datetime import date
from typing import Any

import click
from click.shell_completion import CompletionItem

from cdi_dagster.core.collections import (
    REGISTRY,
    Collection,
    CollectionDay,
    find_collection,
    ids_beginning_with,
    near_miss,
)
from cdi_dagster.core.days import parse_day, storage_day_of
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.snapshot import is_snapshot_day


class DayType(click.ParamType):
    """A calendar day written YYYY-MM-DD."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Read the day, or fail with how to write it."""
        if isinstance(value, date):
            return value
        try:
            return parse_day(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CollectionType(click.ParamType):
    """A collection written db:name."""

    name = "db:name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Collection:
        """Find the collection, or fail with how to write it."""
        if isinstance(value, Collection):
            return value
        try:
            collection = find_collection(str(value))
        except CdiError as error:
            self.fail(error.cause, param, ctx)
        if meant := near_miss(collection.id):
            self.fail(f"{collection.id} is not in the registry: did you mean {meant}?", param, ctx)
        if collection not in REGISTRY and not (ctx and ctx.resilient_parsing):  # not while the shell completes
            assumed = f"an append-only one of the storage group {collection.group}"
            click.echo(f"{collection.id} is not in the registry: it is taken for {assumed}.", err=True)
        return collection

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the collections that begin with what was typed."""
        return [CompletionItem(each) for each in ids_beginning_with(incomplete)]


class RootType(click.ParamType):
    """A root URI."""

    name = "URI"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the root, or fail with how to write it."""
        from cdi_dagster.settings import check_root

        try:
            return check_root(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


Decorator = Callable[[Any], Any]


def collection_option(*, required: bool = True) -> Decorator:
    """`--collection`."""
    return click.option(
        "--collection",
        type=CollectionType(),
        required=required,
        metavar="DB:NAME",
        help="Collection, for example data:businessAudit.",
    )


def storage_day_option(*, required: bool = True) -> Decorator:
    """`--storage-day`."""
    return _day_option(
        "--storage-day", "UTC day under whose prefix K2HB wrote: the day before the export day.", required
    )


def snapshot_day_option(*, required: bool = False) -> Decorator:
    """`--export-day`, of a snapshot."""
    text = "A Friday: the snapshot of a keyed collection, which takes in the storage days until the day before."
    return _day_option("--export-day", text, required)


def _day_option(name: str, text: str, required: bool) -> Decorator:
    return click.option(name, type=DayType(), required=required, metavar="YYYY-MM-DD", help=text)


def wanted_snapshot(collection: Collection, export_day: date) -> CollectionDay:
    """Return the snapshot that `--export-day` names, by its last storage day.

    Raises:
        click.UsageError: the collection has no snapshots, or the day is no Friday.
    """
    by_day = f"a day is named by --storage-day {storage_day_of(export_day)}"
    if not collection.is_keyed:
        raise click.UsageError(f"{collection.id} is append-only and has no snapshots: {by_day}")
    if not is_snapshot_day(export_day):
        raise click.UsageError(f"{export_day} is a {export_day:%A}, and snapshots are of Fridays: {by_day}")
    return collection.on(storage_day_of(export_day))


def corporate_root_option() -> Decorator:
    """`--corporate-root`."""
    return click.option(
        "--corporate-root",
        type=RootType(),
        metavar="URI",
        help="Root of corporate storage. Default: CDI_CORPORATE_ROOT, else below CDI_HOME.",
    )


def published_root_option() -> Decorator:
    """`--published-root`."""
    return click.option(
        "--published-root",
        type=RootType(),
        metavar="URI",
        help="Root of what we publish. Default: CDI_PUBLISHED_ROOT, else below CDI_HOME.",
    )


def override_gate_option() -> Decorator:
    """`--override-gate`."""
    return click.option(
        "--override-gate",
        is_flag=True,
        help="Continue although the coalescer is not known to be done. Only if you know that it is.",
    )


def allow_fewer_offsets_option() -> Decorator:
    """`--allow-fewer-offsets`."""
    return click.option(
        "--allow-fewer-offsets",
        is_flag=True,
        help="Continue although the day lacks offsets that it had when it was pinned or published before.",
    )


def verbose_option() -> Decorator:
    """`--verbose`."""
    return click.option("--verbose", is_flag=True, help="Show Spark's own log too.")


_CORRELATION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class CorrelationIdType(click.ParamType):
    """The id of a run: part of keys and file names."""

    name = "ID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the id, or fail with how to write it."""
        if not _CORRELATION_ID.fullmatch(str(value)):
            self.fail("write up to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit", param, ctx)
        return str(value)


def correlation_id_option(help_text: str) -> Decorator:
    """`--correlation-id`."""
    return click.option("--correlation-id", type=CorrelationIdType(), metavar="ID", help=help_text)


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given: they win over the settings."""
    return {name: value for name, value in options.items() if value is not None}
