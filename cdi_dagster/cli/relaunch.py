"""`cdi relaunch`: run days or snapshots again, as a Dagster backfill: seen in the UI, gated, retried like any run."""

import os
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from cdi_dagster.cli.console import facts, json_option, print_json, result_console
from cdi_dagster.cli.options import (
    DayType,
    allow_fewer_offsets_option,
    collection_option,
    override_gate_option,
    wanted_snapshot,
)
from cdi_dagster.cli.webserver import REQUESTED_BY_TAG, AssetOfCollection, Webserver
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of, storage_day_of, storage_days_between
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.loopback import is_loopback
from cdi_dagster.core.reject_limit import parse_reject_limit
from cdi_dagster.core.secret_reference import secret_reference
from cdi_dagster.core.snapshot import is_snapshot_day

if TYPE_CHECKING:
    from cdi_dagster.settings import Settings


class LimitType(click.ParamType):
    """A limit of rejects."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the limit, or fail with how to write it."""
        try:
            return parse_reject_limit(str(value)).text
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("relaunch")
@collection_option()
@click.option(
    "--export-day",
    type=DayType(),
    metavar="YYYY-MM-DD",
    help="First export day: the day after its storage day. Of a keyed collection the first snapshot, a Friday.",
)
@click.option(
    "--storage-day", type=DayType(), metavar="YYYY-MM-DD", help="First storage day, in the place of --export-day."
)
@click.option("--to", "last_day", type=DayType(), metavar="YYYY-MM-DD", help="Last day, of the same kind as the first.")
@click.option(
    "--max-rejected", type=LimitType(), metavar="LIMIT", help="Most rejects of a day: a number or a share (0.1%)."
)
@click.option(
    "--wait-for-coalescer",
    "wait_minutes",
    type=click.IntRange(0, 240),
    default=0,
    metavar="MINUTES",
    help="Wait up to this many minutes for a coalescer that is not done, instead of failing at once.",
)
@click.option("--allow-empty", is_flag=True, help="Publish an empty day where there are no objects at all.")
@click.option(
    "--allow-sparse-offsets",
    is_flag=True,
    help="Accept objects with fewer records than offsets: compacted or transactional topics.",
)
@allow_fewer_offsets_option()
@override_gate_option()
@click.option("--tables-only", is_flag=True, help="The tables alone, from the records that are published.")
@click.option("--url", metavar="URL", help="Dagster's webserver. Default: CDI_DAGSTER_URL.")
@json_option
def relaunch_command(
    collection: Collection,
    export_day: date | None,
    storage_day: date | None,
    last_day: date | None,
    max_rejected: str | None,
    wait_minutes: int,
    allow_empty: bool,
    allow_sparse_offsets: bool,
    allow_fewer_offsets: bool,
    override_gate: bool,
    tables_only: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Run days again, as a Dagster backfill: those of --export-day, or of --storage-day, up to --to.

    An export day is the day after its storage day, which is the partition. The gate applies to these runs as to any:
    days whose coalescer is not done do not start. The other options are those of the launchpad, for every one of the
    runs; each changes what a day promises, so read its section of the runbook first.

    Of a keyed collection, days are those of --storage-day, and --export-day names snapshots: Fridays.
    """
    from cdi_dagster.settings import load_settings

    first, last = _span_of(export_day, storage_day, last_day)
    wanted = _wanted(collection, first, last, by_export_day=bool(export_day))
    chosen_for_input = {
        "override_gate": override_gate,
        "wait_for_coalescer_minutes": wait_minutes,
        "allow_empty": allow_empty,
        "allow_fewer_offsets": allow_fewer_offsets,
    }
    chosen_for_records = {"max_rejected": max_rejected, "allow_sparse_offsets": allow_sparse_offsets}
    run_config = _run_config(collection, chosen_for_input, chosen_for_records)
    if run_config and (tables_only or wanted.are_snapshots):
        what = "A snapshot" if wanted.are_snapshots else "--tables-only"
        raise click.UsageError(f"{what} reads what is published: it takes no option of input and records")
    if tables_only and collection.is_keyed and not wanted.are_snapshots:
        raise click.UsageError(f"The tables of {collection.id} are made from snapshots: name a Friday by --export-day")
    webserver = _webserver(url, load_settings())
    assets = webserver.assets_of(collection, snapshot=wanted.are_snapshots)
    webserver.require_partitions(assets[0], wanted.partitions, are=wanted.kind)
    selected = [asset for asset in assets if _is_table(asset, collection)] if tables_only else assets
    if not selected:
        raise click.UsageError(f"No tables are defined of {collection.id}")
    backfill_id = webserver.launch_backfill(
        selected,
        wanted.partitions,
        title=f"cdi relaunch {collection.id} {wanted.kind} {wanted.partitions[0]} to {wanted.partitions[-1]}",
        tags={REQUESTED_BY_TAG: "cdi relaunch"},
        run_config=run_config,
    )
    result = {
        "backfill_id": backfill_id,
        "url": f"{webserver.url}/runs/b/{backfill_id}",
        "collection": collection.id,
        **wanted.to_json(),
        "assets": ["/".join(asset.path) for asset in selected],
        "run_config": run_config,
    }
    print_json(result) if as_json else _show(result, wanted, {**chosen_for_input, **chosen_for_records})


def _webserver(url: str | None, settings: "Settings") -> Webserver:
    address = url or settings.dagster_url
    if not settings.dagster_token:
        return Webserver(address)
    parts = urlsplit(address)
    if parts.scheme != "https" and not is_loopback(parts.hostname):
        raise click.UsageError(f"CDI_DAGSTER_TOKEN would be sent to {address} in the clear: write https://…")
    return Webserver(address, {settings.dagster_token_header: _token(settings.dagster_token)})


def _token(reference: str) -> str:
    """Return the token that the setting names; it is kept nowhere."""
    if reference.startswith("env://"):
        variable = reference.removeprefix("env://")
        if token := os.environ.get(variable):
            return token
        raise click.UsageError(f"CDI_DAGSTER_TOKEN names the variable {variable}, which is not set")
    from cdi_dagster.aws.secrets import SecretError, read_secret

    secret = secret_reference(reference)
    try:
        return read_secret(secret).strip() if secret else ""
    except SecretError as error:
        raise CdiError(
            FailureClass.WEBSERVER_UNAVAILABLE,
            f"CDI_DAGSTER_TOKEN: {error}.",
            next_step="Allow secretsmanager:GetSecretValue on it, or name another.",
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What is run again.

    Attributes:
        days: the partitions: storage days, or the export days of snapshots.
        are_snapshots: which of both.
    """

    days: list[date]
    are_snapshots: bool

    @property
    def kind(self) -> str:
        return "snapshots" if self.are_snapshots else "storage days"

    @property
    def partitions(self) -> list[str]:
        return [str(day) for day in self.days]

    def to_json(self) -> dict[str, Any]:
        if self.are_snapshots:
            return {"snapshots": self.partitions}
        return {"export_days": [str(export_day_of(day)) for day in self.days], "storage_days": self.partitions}

    def facts(self) -> list[tuple[str, str]]:
        if self.are_snapshots:
            return [("snapshots", f"{_span(self.days)} (the partitions: export days, Fridays)")]
        return [
            ("export days", _span([export_day_of(day) for day in self.days])),
            ("storage days", f"{_span(self.days)} (the partitions: each the day before its export day)"),
        ]


def _wanted(collection: Collection, first: date, last: date, *, by_export_day: bool) -> _Wanted:
    if by_export_day and collection.is_keyed:
        for friday in (first, last):
            wanted_snapshot(collection, friday)
        fridays = [day for day in storage_days_between(first, last) if is_snapshot_day(day)]
        return _Wanted(days=fridays, are_snapshots=True)
    if by_export_day:
        first, last = storage_day_of(first), storage_day_of(last)
    return _Wanted(days=storage_days_between(first, last), are_snapshots=False)


def _span_of(export_day: date | None, storage_day: date | None, last_day: date | None) -> tuple[date, date]:
    first = export_day or storage_day
    if first is None or (export_day and storage_day):
        raise click.UsageError("Name the first day by one of --export-day and --storage-day")
    last = last_day or first
    if last < first:
        kind = "--export-day" if export_day else "--storage-day"
        raise click.UsageError(f"--to {last} is before {kind} {first}: swap them")
    return first, last


def _run_config(
    collection: Collection, for_input: dict[str, Any], for_records: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the configuration of a run as the launchpad writes it: by op, only what was chosen."""
    # As `names.input_key` and `names.daily_records_key`; no dagster here.
    ops = {
        f"corporate_storage__{collection.asset_name}": {name: value for name, value in for_input.items() if value},
        f"{collection.asset_name}__{collection.output_name}": {
            name: value for name, value in for_records.items() if value
        },
    }
    configured = {op: {"config": config} for op, config in ops.items() if config}
    return {"ops": configured} if configured else {}


def _is_table(asset: AssetOfCollection, collection: Collection) -> bool:
    is_made_from = (collection.output_name, "snapshot")
    return asset.path[0] == collection.asset_name and asset.path[-1] not in is_made_from


def _show(result: dict[str, Any], wanted: _Wanted, chosen: dict[str, Any]) -> None:
    options = ", ".join(f"{name} {value}" for name, value in chosen.items() if value)
    result_console().print(
        facts(
            [
                ("launched", f"backfill {result['backfill_id']}: {result['collection']}, {len(wanted.days)} run(s)"),
                *wanted.facts(),
                ("assets", ", ".join(result["assets"])),
                *([("with", options)] if options else []),
                ("watch it at", result["url"]),
            ]
        )
    )


def _span(days: list[date]) -> str:
    return str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}"
