"""`cdi dev`: the Dagster UI on the demo's home, with a daemon and a local key service, until Ctrl-C."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import click

from cdi_dagster.cli.console import json_option, print_json, progress, progress_console
from cdi_dagster.cli.demo_home import DemoHome, home_option
from cdi_dagster.core.loopback import is_loopback

_DAYS = 4
"""Partitions of a home that the demo has not filled yet."""
_OF_AN_INSTALLATION = (
    *("CDI_HOME", "CDI_DEPLOYMENT", "CDI_CORPORATE_ROOT", "CDI_PUBLISHED_ROOT", "CDI_FIRST_STORAGE_DAY"),
    *("CDI_DKS_URL", "CDI_DKS_CA", "CDI_DKS_CERTIFICATE", "CDI_DKS_PRIVATE_KEY", "CDI_COALESCER_SOURCE"),
    *("CDI_COALESCER_BATCH_", "CDI_AWS_", "CDI_EMR_", "CDI_S3_", "CDI_S3A_", "CDI_STATUS_TABLE_", "CDI_DAGSTER_URL"),
)
"""What names places and identities: with them, invented data would reach a real installation."""


@click.command("dev")
@home_option()
@click.option(
    "--port", type=click.IntRange(1024, 65535), default=3000, show_default=True, help="Port of the UI, on loopback."
)
@json_option
def dev_command(home: Path, port: int, as_json: bool) -> None:
    """Open the Dagster UI on the demo's home: webserver, daemon and local key service, until Ctrl-C.

    Materialise a partition, backfill a range, look at schedule and sensor: all of it works, on invented data.
    CDI_… settings of the environment are passed on (CDI_AUTOMATION, CDI_MAX_REJECTED, CDI_LATE_TIME …), but for those
    that name places and identities of an installation; an alert target only where it is on this machine.
    """
    from cdi_dagster.cli.demo_runs import wait_until_loaded
    from cdi_dagster.cli.servers import dagster_dev, key_service
    from cdi_dagster.cli.webserver import Webserver

    passed_on, left_aside = settings_for_the_demo(os.environ)
    demo = DemoHome.open(home, days=_DAYS, keep=passed_on)
    demo.make_dagster_home()
    url = f"http://127.0.0.1:{port}"
    log_path = demo.folder / "logs" / "dagster.log"
    with (
        key_service(demo.folder) as dks_url,
        dagster_dev({**demo.environment(dks_url), "CDI_DAGSTER_URL": url}, port=port, log_path=log_path) as dagster,
    ):
        with progress("Starting Dagster: webserver, daemon, code location"):
            wait_until_loaded(Webserver(url), dagster)
        if as_json:
            places = {"url": url, "dks_url": dks_url, "home": str(demo.folder), "log": str(log_path)}
            print_json({**places, "settings": passed_on, "settings_left_aside": left_aside})
        console = progress_console()
        console.print(f"[bold green]Dagster is up:[/] [bold]{url}[/]")
        console.print(f"  home {demo.folder}, log {log_path}")
        console.print(f"  local key service {dks_url} (development only)")
        for what, names in (("settings passed on", passed_on), ("settings of an installation, left aside", left_aside)):
            if names:
                console.print(f"  {what}: {', '.join(names)}")
        console.print("  Ctrl-C ends all of it.")
        while True:
            dagster.require_running("Dagster")
            time.sleep(1)


def settings_for_the_demo(environment: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the names of the settings that the demo's Dagster gets, and of those that it must not have."""
    ours = sorted(name for name in environment if name.startswith("CDI_"))
    aside = [
        name
        for name in ours
        if name.startswith(_OF_AN_INSTALLATION)
        or (name == "CDI_ALERT_TARGET" and not is_loopback(urlsplit(environment[name]).hostname))
    ]
    return [name for name in ours if name not in aside], aside
