"""The command group: the tour that `cdi --help` shows, lazy loading, and what a failure looks like.

A new command is one entry in `COMMANDS` and a click command where it points.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

import click

from cdi_dagster.cli import completion as completion  # registers itself
from cdi_dagster.cli.console import json_wanted, print_failure, print_json
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.full_disk import is_full, storage_full
from cdi_dagster.storage import StorageError, storage_failure

_USED_WRONGLY = 2
_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One command of the tour: its section, where its click command is, and its line in the tour."""

    section: str
    name: str
    target: str
    summary: str


_START = "Start here"
_DAILY = "Daily work"
_BY_HAND = "By hand, without Dagster"
_CLUSTERS = "Clusters (AWS EMR)"
_DEVELOPMENT = "Development (invented data, keys that are not secret)"

COMMANDS: tuple[Entry, ...] = (
    Entry(
        section=_START,
        name="demo",
        target="cdi_dagster.cli.demo:demo_command",
        summary="Sample days through the real thing, by Dagster.",
    ),
    Entry(
        section=_START,
        name="dev",
        target="cdi_dagster.cli.dev:dev_command",
        summary="Open the Dagster UI on the demo's home.",
    ),
    Entry(
        section=_START,
        name="doctor",
        target="cdi_dagster.cli.doctor:doctor_command",
        summary="Check this installation: a line for each part, with the fix.",
    ),
    Entry(
        section=_DAILY,
        name="status",
        target="cdi_dagster.cli.status:status_command",
        summary="How far a day or snapshot is, and why; or all last days.",
    ),
    Entry(
        section=_DAILY,
        name="show",
        target="cdi_dagster.cli.show:show_command",
        summary="Records of a day, where an event went; a snapshot's mark.",
    ),
    Entry(
        section=_DAILY,
        name="watch",
        target="cdi_dagster.cli.watch:watch_command",
        summary="For cron: every day published by its deadline, the daemon alive.",
    ),
    Entry(
        section=_DAILY,
        name="alert",
        target="cdi_dagster.cli.alert:alert_group",
        summary="Send a test alert to where alerts go.",
    ),
    Entry(
        section=_DAILY,
        name="relaunch",
        target="cdi_dagster.cli.relaunch:relaunch_command",
        summary="Run days or snapshots again, as a Dagster backfill.",
    ),
    Entry(
        section=_DAILY,
        name="compare",
        target="cdi_dagster.cli.compare:compare_command",
        summary="Whether two published prefixes hold the same records.",
    ),
    Entry(
        section=_DAILY,
        name="clusters",
        target="cdi_dagster.cli.clusters:clusters_command",
        summary="List our clusters on EMR; terminate those without a run.",
    ),
    Entry(
        section=_DAILY,
        name="rejects",
        target="cdi_dagster.cli.rejects:rejects_group",
        summary="Where rejects came from; ingest them again once fixed.",
    ),
    Entry(
        section=_BY_HAND,
        name="coalesce",
        target="cdi_dagster.coalescer.command:coalesce_command",
        summary="Run the coalescer on one storage day.",
    ),
    Entry(
        section=_BY_HAND,
        name="pin",
        target="cdi_dagster.cli.pin:pin_command",
        summary="Write the pinned input of a day, or report why not.",
    ),
    Entry(
        section=_BY_HAND,
        name="ingest",
        target="cdi_dagster.cli.ingest:ingest_command",
        summary="Pin a day, run the Spark job, publish; print the counts.",
    ),
    Entry(
        section=_BY_HAND,
        name="tables",
        target="cdi_dagster.cli.tables:tables_group",
        summary="Publish the tables of days again; check a definition.",
    ),
    Entry(
        section=_BY_HAND,
        name="snapshot",
        target="cdi_dagster.cli.snapshot:snapshot_group",
        summary="Make a keyed collection's snapshot of a Friday, or adopt one.",
    ),
    Entry(
        section=_CLUSTERS,
        name="bundle",
        target="cdi_dagster.cli.bundle:bundle_command",
        summary="Make what a cluster needs, addressed by its content.",
    ),
    Entry(
        section=_CLUSTERS,
        name="deploy",
        target="cdi_dagster.cli.deploy:deploy_group",
        summary="Upload a bundle; write cdi.env from CloudFormation stacks.",
    ),
    Entry(
        section=_DEVELOPMENT,
        name="sample",
        target="cdi_dagster.cli.sample:sample_command",
        summary="Write encrypted raw objects as K2HB does.",
    ),
    Entry(
        section=_DEVELOPMENT,
        name="dks",
        target="cdi_dagster.demo.key_service:dks_command",
        summary="Run the local key service.",
    ),
)


class Tour(click.Group):
    """Lists commands by section without importing them, and turns failures into messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the tour."""
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that was requested."""
        for entry in COMMANDS:
            if entry.name == cmd_name:
                module, _, attribute = entry.target.partition(":")
                command = getattr(import_module(module), attribute)
                if not isinstance(command, click.Command):
                    raise TypeError(f"{entry.target} is not a click command")
                return command
        near = get_close_matches(cmd_name, self.list_commands(ctx), n=1)
        if near:
            raise click.UsageError(f"No such command '{cmd_name}': did you mean {near[0]}?", ctx=ctx)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the tour."""
        for section in dict.fromkeys(entry.section for entry in COMMANDS):
            with formatter.section(section):
                formatter.write_dl([(entry.name, entry.summary) for entry in COMMANDS if entry.section == section])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a failure is shown with class, cause and next step."""
        from cdi_dagster.settings import SettingsError

        before = signal.signal(signal.SIGTERM, _stop)
        try:
            return super().invoke(ctx)
        except CdiError as error:
            _fail(ctx, error)
        except StorageError as error:
            _fail(ctx, storage_failure(error))
        except SettingsError as error:
            _refuse(ctx, error.problems)
        except OSError as error:
            if not is_full(error):
                raise
            print_failure(storage_full(f"A disk is full: {error.filename or 'that of the output'}."))
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("Stopped; nothing is left running.", err=True)
            ctx.exit(_INTERRUPTED)
        finally:
            signal.signal(signal.SIGTERM, before)


def _stop(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does: Spark is ended, the lease released, the status row is FAILED."""
    raise KeyboardInterrupt


def _fail(ctx: click.Context, error: CdiError) -> NoReturn:
    if json_wanted(ctx):
        print_json({"failure": error.to_json()})
    print_failure(error)
    ctx.exit(1)


def _refuse(ctx: click.Context, problems: Sequence[str]) -> NoReturn:
    if json_wanted(ctx):
        print_json({"settings": list(problems)})
    click.echo("The settings cannot be used:", err=True)
    for problem in problems:
        click.echo(f"  {problem}", err=True)
    ctx.exit(_USED_WRONGLY)


@click.command(
    cls=Tour,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Roots are file:///absolute/folder or s3://bucket. Every command takes --json, and exits 0 (done), 1 (the "
    "work failed: class, cause and next step on stderr) or 2 (used wrongly); status also 3 (not published yet). "
    "Defaults come from CDI_… settings.",
)
@click.version_option(package_name="cdi_dagster", prog_name="cdi")
@click.pass_context
def cdi(ctx: click.Context) -> None:
    """Corporate Data Ingestion: a day of encrypted change events becomes records and tables.

    A storage day is the UTC day under whose prefix K2HB wrote; its export day, one later, is the date of everything
    that is published.
    """
    if ctx.invoked_subcommand == "coalesce":
        # The coalescer also runs alone, so it knows no settings; here its root comes from them as everywhere.
        from cdi_dagster.settings import load_settings

        ctx.default_map = {"coalesce": {"storage": load_settings().corporate_root}}
