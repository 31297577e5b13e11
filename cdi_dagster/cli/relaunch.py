"""`cdi relaunch`: ingest export days again, as a Dagster backfill: seen in the UI, gated, retried like any run."""

from datetime import date

import click

from cdi_dagster.cli.console import facts, json_option, print_json, result_console
from cdi_dagster.cli.options import DayType, collection_option
from cdi_dagster.cli.webserver import DEFAULT_URL, Webserver
from cdi_dagster.core.collections import Collection, require_append_only
from cdi_dagster.core.days import storage_day_of, storage_days_between


@click.command("relaunch")
@collection_option()
@click.option("--export-day", type=DayType(), required=True, metavar="YYYY-MM-DD", help="First export day.")
@click.option("--to", "last_export_day", type=DayType(), metavar="YYYY-MM-DD", help="Last export day.")
@click.option("--url", default=DEFAULT_URL, show_default=True, help="Dagster's webserver.")
@json_option
def relaunch_command(
    collection: Collection, export_day: date, last_export_day: date | None, url: str, as_json: bool
) -> None:
    """Ingest export days again, as a Dagster backfill.

    An export day is the day after its storage day, which is the partition. The gate applies to these runs as to any:
    days whose coalescer is not done do not start.
    """
    require_append_only(collection)
    last = last_export_day or export_day
    if last < export_day:
        raise click.UsageError(f"--to {last} is before --export-day {export_day}: swap them")
    storage_days = [str(day) for day in storage_days_between(storage_day_of(export_day), storage_day_of(last))]
    webserver = Webserver(url)
    assets = webserver.assets_of(collection)
    webserver.require_partitions(assets[0], storage_days)
    title = f"cdi relaunch {collection.id} export days {export_day} to {last}"
    backfill_id = webserver.launch_backfill(assets, storage_days, title=title, tags={"cdi/asked_by": "cdi relaunch"})
    link = f"{webserver.url}/runs/b/{backfill_id}"
    if as_json:
        print_json(
            {
                "backfill_id": backfill_id,
                "url": link,
                "collection": collection.id,
                "export_days": [str(day) for day in storage_days_between(export_day, last)],
                "storage_days": storage_days,
                "assets": ["/".join(asset.path) for asset in assets],
            }
        )
        return
    span = storage_days[0] if len(storage_days) == 1 else f"{storage_days[0]} to {storage_days[-1]}"
    exported = f"{export_day}" if last == export_day else f"{export_day} to {last}"
    result_console().print(
        facts(
            [
                ("launched", f"backfill {backfill_id}: {collection.id}, {len(storage_days)} day(s)"),
                ("export days", exported),
                ("storage days", f"{span} (the partitions: each the day before its export day)"),
                ("assets", ", ".join("/".join(asset.path) for asset in assets)),
                ("watch it at", link),
            ]
        )
    )
