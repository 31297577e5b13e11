"""Options that several commands share, and what they become: validated values, settings, storages.

An option that was not given falls back to the settings, so that a configured installation needs few of them.
"""

import re
from collections.abc import Callable
from datetime import date
from typing import Any

import click

from cdi_dagster.core.collections import REGISTRY, Collection, find_collection, near_miss
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.failures import CdiError


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
        if collection not in REGISTRY:
            assumed = f"an append-only one of the storage group {collection.group}"
            click.echo(f"{collection.id} is not in the registry: it is taken for {assumed}.", err=True)
        return collection


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
    return click.option(
        "--storage-day",
        type=DayType(),
        required=required,
        metavar="YYYY-MM-DD",
        help="UTC day under whose prefix K2HB wrote: the day before the export day.",
    )


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
