"""`cdi relaunch`: run days again, as a Dagster backfill: seen in the UI, gated, retried like any run."""

import os
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
)
from cdi_dagster.cli.webserver import REQUESTED_BY_TAG, AssetOfCollection, Webserver
from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import export_day_of, storage_day_of, storage_days_between
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.loopback import is_loopback
from cdi_dagster.core.reject_limit import parse_reject_limit
from cdi_dagster.core.secret_reference import secret_reference

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
    "--export-day", type=DayType(), metavar="YYYY-MM-DD", help="First export day: the day after its storage day."
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
    help="Wait so long for a coalescer that is not done, instead of failing at once.",
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
    """
    from cdi_dagster.settings import load_settings

    storage_days = _storage_days(export_day, storage_day, last_day)
    chosen_for_input = {
        "override_gate": override_gate,
        "wait_for_coalescer_minutes": wait_minutes,
        "allow_empty": allow_empty,
        "allow_fewer_offsets": allow_fewer_offsets,
    }
    chosen_for_records = {"max_rejected": max_rejected, "allow_sparse_offsets": allow_sparse_offsets}
    run_config = _run_config(collection, chosen_for_input, chosen_for_records)
    if tables_only and run_config:
        raise click.UsageError("--tables-only reads what is published: it takes no option of input and records")
    webserver = _webserver(url, load_settings())
    assets = webserver.assets_of(collection)
    webserver.require_partitions(assets[0], storage_days)
    selected = [asset for asset in assets if _is_table(asset, collection)] if tables_only else assets
    if not selected:
        raise click.UsageError(f"No tables are defined of {collection.id}")
    backfill_id = webserver.launch_backfill(
        selected,
        storage_days,
        title=f"cdi relaunch {collection.id} storage days {storage_days[0]} to {storage_days[-1]}",
        tags={REQUESTED_BY_TAG: "cdi relaunch"},
        run_config=run_config,
    )
    result = {
        "backfill_id": backfill_id,
        "url": f"{webserver.url}/runs/b/{backfill_id}",
        "collection": collection.id,
        "export_days": [str(export_day_of(date.fromisoformat(day))) for day in storage_days],
        "storage_days": storage_days,
        "assets": ["/".join(asset.path) for asset in selected],
        "run_config": run_config,
    }
    print_json(result) if as_json else _show(result, {**chosen_for_input, **chosen_for_records})


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


def _storage_days(export_day: date | None, storage_day: date | None, last_day: date | None) -> list[str]:
    first = export_day or storage_day
    if first is None or (export_day and storage_day):
        raise click.UsageError("Name the first day by one of --export-day and --storage-day")
    last = last_day or first
    if last < first:
        kind = "--export-day" if export_day else "--storage-day"
        raise click.UsageError(f"--to {last} is before {kind} {first}: swap them")
    if export_day:
        first, last = storage_day_of(first), storage_day_of(last)
    return [str(day) for day in storage_days_between(first, last)]


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
    return asset.path[0] == collection.asset_name and asset.path[-1] != collection.output_name


def _show(result: dict[str, Any], chosen: dict[str, Any]) -> None:
    export_days, storage_days = result["export_days"], result["storage_days"]
    options = ", ".join(f"{name} {value}" for name, value in chosen.items() if value)
    result_console().print(
        facts(
            [
                ("launched", f"backfill {result['backfill_id']}: {result['collection']}, {len(storage_days)} day(s)"),
                ("export days", _span(export_days)),
                ("storage days", f"{_span(storage_days)} (the partitions: each the day before its export day)"),
                ("assets", ", ".join(result["assets"])),
                *([("with", options)] if options else []),
                ("watch it at", result["url"]),
            ]
        )
    )


def _span(days: list[str]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
