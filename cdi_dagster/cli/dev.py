"""`cdi dev`: the Dagster UI on the demo's home, with a daemon and a local key service, until Ctrl-C."""

import time
from pathlib import Path

import click

from cdi_dagster.cli.console import json_option, print_json, progress, progress_console
from cdi_dagster.cli.demo_home import DemoHome, home_option

_DAYS = 4
"""Partitions of a home that the demo has not filled yet."""


@click.command("dev")
@home_option()
@click.option(
    "--port", type=click.IntRange(1024, 65535), default=3000, show_default=True, help="Port of the UI, on loopback."
)
@json_option
def dev_command(home: Path, port: int, as_json: bool) -> None:
    """Open the Dagster UI on the demo's home: webserver, daemon and local key service, until Ctrl-C.

    Materialise a partition, backfill a range, look at schedule and sensor: all of it works, on invented data.
    """
    from cdi_dagster.cli.demo_runs import wait_until_loaded
    from cdi_dagster.cli.servers import dagster_dev, key_service
    from cdi_dagster.cli.webserver import Webserver

    demo = DemoHome.open(home, days=_DAYS)
    demo.make_dagster_home()
    url = f"http://127.0.0.1:{port}"
    log_path = demo.folder / "logs" / "dagster.log"
    with (
        key_service(demo.folder) as dks_url,
        dagster_dev(demo.environment(dks_url), port=port, log_path=log_path) as dagster,
    ):
        with progress("Starting Dagster: webserver, daemon, code location"):
            wait_until_loaded(Webserver(url), dagster)
        if as_json:
            print_json({"url": url, "dks_url": dks_url, "home": str(demo.folder), "log": str(log_path)})
        console = progress_console()
        console.print(f"[bold green]Dagster is up:[/] [bold]{url}[/]")
        console.print(f"  home {demo.folder}, log {log_path}")
        console.print(f"  local key service {dks_url} (development only)")
        console.print("  Ctrl-C ends all of it.")
        while True:
            dagster.require_running("Dagster")
            time.sleep(1)
