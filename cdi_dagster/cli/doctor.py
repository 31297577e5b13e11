"""`cdi doctor`: checks an installation: a line for each part, with the fix.

Each check is a function of the settings that returns a `Finding`; a new check is one entry in `CHECKS`. A check never
raises for what it is meant to find.
"""

import importlib.metadata
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click
from rich.markup import escape
from rich.text import Text

from cdi_dagster.cli.console import json_option, print_json, progress, progress_console, result_console
from cdi_dagster.cli.daemon_heartbeat import read_daemon
from cdi_dagster.cli.dagster_home import dagster_home_of
from cdi_dagster.cli.doctor_aws import EMR_CHECKS, check_aws
from cdi_dagster.clock import utc_now
from cdi_dagster.core.amounts import size_text
from cdi_dagster.core.collections import CORPORATE_STORAGE
from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.findings import CheckResult, Finding, failed, note, ok
from cdi_dagster.core.spark_jobs import PUBLISH_TABLES
from cdi_dagster.core.storage_keys import doctor_key
from cdi_dagster.settings import Settings, load_settings
from cdi_dagster.storage import StorageError, open_storage
from cdi_dagster.table_definitions import all_with_tables

_FAIL_BELOW_BYTES = 1_000_000_000
_WARN_BELOW_BYTES = 5_000_000_000
_ON_EMR = "not needed here: Spark runs on EMR"


def check_java(settings: Settings) -> Finding:
    """The Java that local Spark would use."""
    from cdi_dagster.local_spark.java import find_java

    if settings.deployment == "emr":
        return note(_ON_EMR)
    try:
        java = find_java()
    except CdiError as error:
        return failed(error.cause, error.next_step)
    passed_over = "".join(f"; {reason}" for reason in java.passed_over)
    return ok(f"{java.path}: Java {java.release}, from {java.source}{passed_over}")


def check_spark(settings: Settings) -> Finding:
    """Whether spark-submit starts, and has what it needs where tables are published to S3."""
    from cdi_dagster.local_spark.java import find_java
    from cdi_dagster.local_spark.spark_submit import spark_environment, spark_submit_command

    if settings.deployment == "emr":
        return note(_ON_EMR)
    try:
        arguments = ("--published-root", settings.published_root)
        submit = spark_submit_command(PUBLISH_TABLES, arguments, config=settings.local_spark)[0]
        environment = spark_environment(find_java().path)
    except CdiError as error:
        return failed(error.cause, error.next_step)
    version = importlib.metadata.version("pyspark")
    ended = subprocess.run(  # noqa: S603
        [submit, "--version"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no output"])[-1]
        return failed(f"{submit} does not start: {last}", f"Install it again: pip install pyspark=={version}.")
    return ok(f"pyspark {version}, spark-submit starts")


def check_corporate_root(settings: Settings) -> Finding:
    """Whether corporate storage can be listed; we never write there."""
    try:
        storage = open_storage(settings.corporate_root)
        next(iter(storage.list(CORPORATE_STORAGE)), None)
    except StorageError as error:
        return failed(str(error), "Fix what it names, or correct CDI_CORPORATE_ROOT.")
    return ok(f"{settings.corporate_root} can be listed")


def check_published_root(settings: Settings) -> Finding:
    """Whether what we publish can be written, read and deleted."""
    key = doctor_key(str(uuid.uuid4()))
    try:
        storage = open_storage(settings.published_root)
        storage.write(key, b"written by cdi doctor")
        storage.read(key)
        storage.delete([key])
    except StorageError as error:
        return failed(str(error), "Fix what it names, or correct CDI_PUBLISHED_ROOT.")
    return ok(f"{settings.published_root} can be written and read")


def check_table_definitions(settings: Settings) -> Finding:
    """Whether the definitions of the tables can be used."""
    try:
        collections = all_with_tables(settings.ingested_collections, settings.table_definitions)
    except CdiError as error:
        return failed(error.cause, error.next_step)
    except StorageError as error:
        return failed(str(error), "Fix what it names, or correct CDI_TABLE_DEFINITIONS.")
    described = (
        f"{collection.id}: {len(definition.tables)} by {definition.source}"
        for collection in collections
        if (definition := collection.tables or collection.snapshot_tables)
    )
    return ok("; ".join(described))


def check_key_service(settings: Settings) -> Finding:
    """Whether the Data Key Service responds, with our certificate where one is set."""
    import urllib3

    from cdi_dagster.aws.secrets import SecretError
    from cdi_dagster.spark.key_service.config import KeyServiceConfig
    from cdi_dagster.spark.key_service.handshake import check_handshake

    url = settings.dks_url
    try:
        return check_handshake(KeyServiceConfig(correlation_id="doctor", **asdict(settings.key_service)))
    except SecretError as error:
        if settings.deployment == "emr":
            return note(
                f"not checked: {error}",
                "Enough, where the cluster's instance role may read it and we need not: cdi doctor --on-cluster.",
            )
        return failed(str(error), "Correct the reference in CDI_DKS_CA, CDI_DKS_CERTIFICATE or CDI_DKS_PRIVATE_KEY.")
    except (urllib3.exceptions.HTTPError, OSError) as error:
        if "dks_url" in settings.model_fields_set:
            fix = "Start it, or correct CDI_DKS_URL, or the network to it: every day would fail with DKS_UNAVAILABLE."
            return failed(f"{url} does not respond ({type(error).__name__})", fix)
        text = f"none is configured (CDI_DKS_URL), and none runs at {url}"
        return note(text, "cdi dks starts one there; make demo and make dev have their own.")


def check_daemon(settings: Settings) -> Finding:
    """Whether the Dagster daemon of DAGSTER_HOME runs; without it no schedule, sensor or queued run starts."""
    home = dagster_home_of(settings)
    is_needed = settings.automation or settings.deployment == "emr"
    if not (home / "dagster.yaml").is_file():
        text, fix = f"no Dagster home at {home}", _dagster_home_fix()
        return failed(text, fix) if is_needed else note(text, fix)
    daemon = read_daemon(home, utc_now())
    if daemon.is_running:
        return ok(f"running in {home}: {daemon.reason}")
    if is_needed:
        fix = f"Start dagster-daemon with DAGSTER_HOME={home}; no schedule or sensor runs."
        return failed(f"not running: {daemon.reason}", fix)
    fix = "make dev starts it; without it schedules and sensors do nothing."
    return note(f"not running ({daemon.reason})", fix)


def _dagster_home_fix() -> str:
    from cdi_dagster.cli.demo_home import DEMO_HOME

    if (DEMO_HOME / "dagster_home" / "dagster.yaml").is_file() and not os.environ.get("DAGSTER_HOME"):
        return f"The demo has one: export CDI_HOME=$PWD/{DEMO_HOME}"
    return "make demo makes one, or set DAGSTER_HOME."


def check_disk(settings: Settings) -> Finding:
    """Room for local data, logs and Spark's scratch files, and in the file systems of the roots that are folders."""
    folders = [settings.home, Path(tempfile.gettempdir())]
    roots = (settings.corporate_root, settings.published_root)
    folders += [Path(unquote(urlsplit(root).path)) for root in roots if root.startswith("file://")]
    by_disk = {os.stat(folder).st_dev: folder for folder in map(_existing, reversed(folders))}
    free = {folder: shutil.disk_usage(folder).free for folder in by_disk.values()}
    short = sorted(folder for folder in free if free[folder] < _FAIL_BELOW_BYTES)
    shown = short or [min(free, key=lambda folder: free[folder])]
    text = ", ".join(f"{size_text(free[folder])} free in {folder}" for folder in shown)
    if short:
        return failed(text, "Make room there, runs need at least 1 GB; or move CDI_HOME, TMPDIR or the root elsewhere.")
    is_tight = free[shown[0]] < _WARN_BELOW_BYTES
    return note(text, "A large day may need more than 5 GB.") if is_tight else ok(text)


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


CHECKS: dict[str, tuple[str, Callable[[Settings], Finding]]] = {
    "java": ("Java", check_java),
    "spark": ("Spark", check_spark),
    "corporate-root": ("Corporate root", check_corporate_root),
    "published-root": ("Published root", check_published_root),
    "table-definitions": ("Tables", check_table_definitions),
    "key-service": ("Key service", check_key_service),
    "aws": ("AWS identity", check_aws),
    **EMR_CHECKS,
    "daemon": ("Dagster daemon", check_daemon),
    "disk": ("Disk space", check_disk),
}


@click.command("doctor")
@click.option("--only", type=click.Choice(list(CHECKS)), multiple=True, help="Check only this; may be repeated.")
@click.option("--quiet", is_flag=True, help="Print only what failed.")
@click.option(
    "--on-cluster",
    is_flag=True,
    help="Check where Spark jobs run, by a small step: on EMR a cluster, which costs some cents and ten minutes.",
)
@json_option
@click.pass_context
def doctor_command(ctx: click.Context, only: tuple[str, ...], quiet: bool, on_cluster: bool, as_json: bool) -> None:
    """Check this installation: a line for each part, with the fix where it fails. Exits 1 if anything fails.

    With --on-cluster a Spark step checks the same from the inside, as the role of the nodes: region, roots, encryption,
    key service, metastore, Python and its packages. Run it before the first day.
    """
    if on_cluster and only:
        raise click.UsageError("--only chooses checks of this machine: leave it out with --on-cluster")
    settings = load_settings()

    def show(title: str, finding: Finding) -> None:
        if not as_json and (finding.result is CheckResult.FAILED or not quiet):
            result_console().print(_line(title, finding))

    if on_cluster:
        launch, findings = _on_cluster(settings, show, as_json=as_json)
    else:
        launch, findings = {}, {}
        for name in only or [name for name in CHECKS if settings.deployment == "emr" or name not in EMR_CHECKS]:
            title, check = CHECKS[name]
            findings[name] = check(settings)
            show(title, findings[name])
    bad = [name for name, finding in findings.items() if finding.result is CheckResult.FAILED]
    if as_json:
        checks = {name: finding.to_json() for name, finding in findings.items()}
        print_json({"ok": not bad, **launch, "checks": checks})
    if bad:
        ctx.exit(1)


def _on_cluster(
    settings: Settings, show: Callable[[str, Finding], None], *, as_json: bool
) -> tuple[dict[str, Any], dict[str, Finding]]:
    """Launch the checks of a cluster and show their findings; return the launch as JSON, and the findings by name."""
    from cdi_dagster.cli.doctor_cluster import check_cluster

    try:
        with progress("Checking where Spark jobs run") as report:
            checked = check_cluster(settings, report)
    except CdiError as error:
        if lines := error.detail.get("last_log_lines"):
            progress_console().print(escape(f"Last lines of the log:\n{lines}"), style="dim")
        raise
    for title, finding in checked.findings.values():
        show(title, finding)
    if not as_json:
        result_console().print(escape(f"Checked {checked.where}. Log: {checked.evidence.log_location}"))
    return checked.to_json(), {name: finding for name, (_, finding) in checked.findings.items()}


_MARKS = {
    CheckResult.OK: ("ok", "green"),
    CheckResult.NOTE: ("--", "yellow"),
    CheckResult.FAILED: ("FAILED", "bold red"),
}


def _line(title: str, finding: Finding) -> Text:
    mark, style = _MARKS[finding.result]
    line = Text(f"{mark:<8}", style=style).append(f"{title:<16}{finding.text}", style="default")
    if finding.fix:
        line.append(f"\n{'':<24}{finding.fix}", style="dim")
    return line
