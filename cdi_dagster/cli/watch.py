"""`cdi watch`: for cron, from outside Dagster: is every automated day published by its deadline, is the daemon alive?

Reads the published marks and the daemon's heartbeats, and needs neither webserver nor daemon. What cannot be read is a
problem too, so it reports one whatever has gone. What is alerted is `core.watch_decision`.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from cdi_dagster.cli.console import json_option, print_json
from cdi_dagster.cli.daemon_heartbeat import PATIENCE_SECONDS, read_daemon
from cdi_dagster.cli.dagster_home import dagster_home_of
from cdi_dagster.cli.options import CollectionType
from cdi_dagster.clock import utc_now
from cdi_dagster.core.alert import Alert, AlertLevel
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.days import export_day_of
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.snapshot_decision import due_snapshots, late_snapshots
from cdi_dagster.core.watch_decision import Problem, WatchAction, WatchState, decide_watch
from cdi_dagster.interfaces import AlertSink
from cdi_dagster.published.read import read_mark
from cdi_dagster.published.snapshot_facts import read_snapshot
from cdi_dagster.published.tables import missing_tables
from cdi_dagster.settings import Settings, load_settings
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster.table_definitions import all_with_tables

PUBLISHED, DAEMON = "published", "daemon"
_KEY = "watch"
_IS_WELL = {
    PUBLISHED: "Every watched day and snapshot is published by its deadline.",
    DAEMON: "The Dagster daemon is running.",
}


@click.command("watch")
@click.option(
    "--only",
    type=click.Choice([PUBLISHED, DAEMON]),
    multiple=True,
    help="Watch only this: `published` where the Dagster home is out of reach, on another machine.",
)
@click.option(
    "--collection",
    "collections",
    type=CollectionType(),
    multiple=True,
    metavar="DB:NAME",
    help="Watch only this collection; may be repeated. Default: every one that is ingested automatically.",
)
@click.option(
    "--alert", is_flag=True, help="Send what is new to CDI_ALERT_TARGET, once, then daily; once more when all is well."
)
@click.option(
    "--heartbeat-seconds",
    type=click.FloatRange(min=30),
    default=PATIENCE_SECONDS,
    show_default=True,
    help="Age of the daemon's last heartbeat at which it counts as dead. It leaves one every 30 s.",
)
@json_option
@click.pass_context
def watch_command(
    ctx: click.Context,
    only: tuple[str, ...],
    collections: tuple[Collection, ...],
    alert: bool,
    heartbeat_seconds: float,
    as_json: bool,
) -> None:
    """Check that every automated day is published by its deadline, records and tables, and that the daemon is alive.

    Every snapshot of a keyed collection is checked too.
    For cron, and for a machine without Dagster. Exits 0 where all is well, 1 where not, with a line for each reason.
    """
    settings = load_settings()
    if alert and not settings.alert_target:
        raise click.UsageError("--alert needs CDI_ALERT_TARGET: set it to where alerts are to be sent.")
    now = utc_now()
    looks: dict[str, Callable[[], Iterable[Problem]]] = {
        PUBLISHED: lambda: _unpublished(settings, collections, now),
        DAEMON: lambda: _dead_daemon(settings, now, heartbeat_seconds),
    }
    watched = only or tuple(looks)
    problems = [problem for name in watched for problem in _found_by(name, looks[name])]
    sent = _alert(settings, problems, watched, now) if alert else WatchAction.NOTHING
    if as_json:
        reasons = [problem.text for problem in problems]
        print_json({"ok": not problems, "reasons": reasons, "sent": None if sent is WatchAction.NOTHING else sent})
    else:
        for line in [problem.text for problem in problems] or ["All is well."]:
            click.echo(line)
    ctx.exit(1 if problems else 0)


def _found_by(name: str, look: Callable[[], Iterable[Problem]]) -> list[Problem]:
    try:
        return list(look())
    except Exception as error:  # noqa: BLE001 - whatever it is, somebody has to know that nothing is known
        what = "The published root" if name == PUBLISHED else "The daemon's heartbeat"
        cause = " ".join(str(error).split()) or type(error).__name__
        return [Problem(keys=(f"{name} unreadable",), text=f"{what} cannot be read: {cause}")]


def _unpublished(settings: Settings, wanted: tuple[Collection, ...], now: datetime) -> Iterator[Problem]:
    published = open_storage(settings.published_root)
    root = urlsplit(settings.published_root)
    if root.scheme == "file" and not Path(unquote(root.path)).is_dir():
        raise FileNotFoundError(f"there is no folder {settings.published_root}: is its disk mounted?")
    late_days = settings.calendar.late_days(now)
    for collection in all_with_tables(wanted or settings.ingested_collections, settings.table_definitions):
        found = [(day, _what_is_missing(published, collection.on(day))) for day in late_days]
        for what in dict.fromkeys(missing for _, missing in found if missing):
            days = [day for day, missing in found if missing == what]
            due = f"{settings.late_time:%H:%M} UTC of {export_day_of(days[-1])}"
            yield Problem(
                keys=tuple(f"{collection.id} {day}" for day in days),
                text=f"{collection.id}: {what}: storage day{'s' * (len(days) > 1)} {', '.join(map(str, days))} "
                f"(deadline: {due})",
            )
        if collection.is_keyed:
            yield from _unpublished_snapshots(published, collection, settings, now)


def _unpublished_snapshots(
    published: Storage, collection: Collection, settings: Settings, now: datetime
) -> Iterator[Problem]:
    newest = due_snapshots(settings.calendar, now)[-1:]
    for export_day in late_snapshots(settings.calendar, now):
        facts, _ = read_snapshot(
            published, collection, export_day, settings.first_storage_day, tables=[export_day] == newest
        )
        if what := facts.what_is_missing:
            yield Problem(
                keys=(f"{collection.id} snapshot of {export_day}",),
                text=f"{collection.id}: snapshot of {export_day}: {what} "
                f"(deadline: {settings.late_time:%H:%M} UTC of {export_day})",
            )


def _what_is_missing(published: Storage, day: CollectionDay) -> str | None:
    try:
        mark = read_mark(published, day)
    except CdiError as error:
        return error.cause.rstrip(".")
    if mark is None:
        return "not published"
    tables = missing_tables(published, day, mark)
    return f"tables ({', '.join(tables)}) are not published" if tables else None


def _dead_daemon(settings: Settings, now: datetime, patience_seconds: float) -> Iterator[Problem]:
    home = dagster_home_of(settings)
    if not (home / "dagster.yaml").is_file():
        text = f"There is no Dagster home at {home}: set DAGSTER_HOME, or watch with --only {PUBLISHED}"
        yield Problem(keys=("daemon",), text=text)
        return
    daemon = read_daemon(home, now, patience_seconds=patience_seconds)
    if not daemon.is_running:
        yield Problem(keys=("daemon",), text=f"The Dagster daemon of {home} is not running: {daemon.reason}")


def _alert(settings: Settings, problems: list[Problem], watched: tuple[str, ...], now: datetime) -> WatchAction:
    """Send what has to be sent, and return what was; where it cannot be sent, that is one more problem."""
    from cdi_dagster.resources.alerts import alert_sink

    action, state = decide_watch(problems, _read_state(settings), now)
    try:
        if action is not WatchAction.NOTHING:
            sink = alert_sink(settings.alert_target, token=settings.alert_token, environment=settings.environment)
            _send(sink, action, problems, watched, settings)
    except Exception as error:  # noqa: BLE001 - cron has to know that nobody was alerted
        problems.append(Problem(keys=("alert",), text=f"The alert could not be sent, the next run retries: {error}"))
        return WatchAction.NOTHING
    # After the alert: where this process dies in between, the alert is sent twice rather than never.
    _write_state(settings, state)
    return action


def _send(
    sink: AlertSink, action: WatchAction, problems: list[Problem], watched: tuple[str, ...], settings: Settings
) -> None:
    runbook = f"{settings.runbook_url}#watch"
    if action is WatchAction.RECOVERED:
        text = " ".join(_IS_WELL[name] for name in watched)
        over = Alert(
            kind="WATCH_OVER",
            key=_KEY,
            level=AlertLevel.INFORMATION,
            title="Recovered: all is well again",
            text=text,
            runbook=runbook,
        )
        sink.send(over)
        return
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    sink.send(
        Alert(
            kind="WATCH",
            key=_KEY,
            title=f"WATCH: {problems[0].text}{more}",
            text="\n".join(problem.text for problem in problems),
            runbook=runbook,
            owner="CDI on-call engineer",
            next_step="Start the daemon if it is not running: it then launches the days that it missed, and alerts of "
            "what it cannot do. `cdi doctor` names what else is wrong with the installation.",
        )
    )


def _read_state(settings: Settings) -> WatchState:
    try:
        return WatchState.from_json(json.loads(settings.watch_state_path.read_text()))
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return WatchState()


def _write_state(settings: Settings, state: WatchState) -> None:
    """Keep the state; on a full disk none is kept, and the next run sends the alert again."""
    path = settings.watch_state_path
    try:
        if not state.alerted:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".new").write_text(json.dumps(state.to_json()))
        path.with_suffix(".new").replace(path)
    except OSError as error:
        click.echo(f"{path} cannot be written, so the next run sends the alert again: {error}", err=True)
