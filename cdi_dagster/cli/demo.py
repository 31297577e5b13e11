"""`cdi demo`: several storage days through the real software, on this machine, then where to look.

Invents encrypted raw objects, runs the coalescer, and materialises the days through a real Dagster: webserver, daemon,
run workers, Spark. The home is `demo_home`, the runs are followed in `demo_runs`; this module has the order of steps.
"""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape

from cdi_dagster.cli.console import (
    facts,
    figures_table,
    json_option,
    print_json,
    progress,
    progress_console,
    result_console,
)
from cdi_dagster.cli.demo_home import COLLECTION, DEMO_HOME, KEYED_HOME, DemoHome, home_option
from cdi_dagster.cli.demo_runs import DayResult, materialise, wait_until_loaded
from cdi_dagster.core.amounts import size_text
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import daily_records_prefix

if TYPE_CHECKING:
    from cdi_dagster.cli.servers import Guarded
    from cdi_dagster.cli.webserver import Webserver

_DAYS = 4
_RECORDS, _KEYED_RECORDS = 10_000, 2_000


@click.command("demo")
@home_option(None, f"Folder of the demo. Default: {DEMO_HOME}; with --keyed {KEYED_HOME}.")
@click.option("--keyed", is_flag=True, help="Two weeks of a keyed collection, and its snapshots of two Fridays.")
@click.option("--days", type=click.IntRange(2, 28), help=f"Storage days. Default: {_DAYS}.")
@click.option(
    "--records",
    type=click.IntRange(100),
    help=f"Events of each new day. Default: {_RECORDS:,}; with --keyed {_KEYED_RECORDS:,}.",
)
@json_option
def demo_command(home: Path | None, keyed: bool, days: int | None, records: int | None, as_json: bool) -> None:
    """Run sample days through the real thing: encrypt, coalesce, ingest through Dagster, publish records and tables.

    One of the days holds events that cannot become records, to show what happens then. Running it again is safe:
    days that are there are kept, and each is materialised again, which replaces what was published. Needs no network
    and no AWS.

    With --keyed: two weeks of inserts, updates and deletes of ids, in a folder of their own, until the snapshots of two
    Fridays and their tables are there.
    """
    if keyed and days:
        raise click.UsageError("--keyed is of two weeks: leave --days out")
    if keyed:
        from cdi_dagster.cli.demo_keyed import run_keyed_demo

        run_keyed_demo(DemoHome.open_keyed(home or KEYED_HOME), records or _KEYED_RECORDS, as_json=as_json)
        return
    started = time.monotonic()
    demo = DemoHome.open(home or DEMO_HOME, days=days or _DAYS)
    _print_opening(demo)
    results = _run(demo, records or _RECORDS)
    seconds = time.monotonic() - started
    if as_json:
        print_json({"home": str(demo.folder), "seconds": seconds, "days": [asdict(result) for result in results]})
    else:
        _print_results(result_console(), demo, results, seconds)
    _require_expected(demo, results)


def _print_opening(demo: DemoHome) -> None:
    console = progress_console()
    console.print(
        f"[bold]{len(demo.days)} storage days of invented, encrypted events go through the real software, here:[/]"
    )
    rows = [
        ("1 write", "raw objects, small and many, as K2HB writes them"),
        ("2 coalesce", "they become few and large, as every night"),
        ("3 ingest", "each day through Dagster: gate, pin, decrypt and clean in Spark, publish records and tables"),
    ]
    console.print(facts(rows))
    console.print("A minute or two. One day holds broken events on purpose: it publishes nothing, and is explained.\n")


def _run(demo: DemoHome, records: int) -> list[DayResult]:
    with dagster_with_days(demo, records) as (webserver, dagster):
        results = []
        for number, day in enumerate(demo.days, start=1):
            what = f"Materialising storage day {day.storage_day} ({number} of {len(demo.days)})"
            with progress(what) as report:
                result = materialise(demo, webserver, dagster, demo.collection.on(day.storage_day), report)
            print_result(result)
            results.append(result)
        return results


@contextmanager
def dagster_with_days(demo: DemoHome, records: int) -> "Iterator[tuple[Webserver, Guarded]]":
    """Write and coalesce the days, and run Dagster with them as long as the block lasts."""
    from cdi_dagster.cli.servers import dagster_dev, free_port, key_service
    from cdi_dagster.cli.webserver import Webserver

    demo.make_dagster_home()
    port = free_port()
    log_path = demo.folder / "logs" / "dagster.log"
    with (
        key_service(demo.folder) as dks_url,
        # Dagster needs some seconds to come up: meanwhile the days are written and coalesced.
        dagster_dev(demo.environment(dks_url), port=port, log_path=log_path) as dagster,
    ):
        with progress("Writing storage days as K2HB does (invented, encrypted)") as report:
            demo.write_days(records, report)
        coalesce_days(demo)
        webserver = Webserver(f"http://127.0.0.1:{port}")
        with progress("Starting Dagster: webserver, daemon, code location"):
            wait_until_loaded(webserver, dagster)
        yield webserver, dagster


def coalesce_days(demo: DemoHome) -> None:
    """Run the coalescer on every day.

    Raises:
        CdiError: COALESCER_FAILED where it did not finish one.
    """
    from cdi_dagster.coalescer import coalesce

    with progress("Coalescing: small objects become large ones, then go") as report:
        for day in demo.days:
            summary = coalesce(demo.corporate, demo.collection.on(day.storage_day))
            if not summary.succeeded:
                raise CdiError(
                    FailureClass.COALESCER_FAILED,
                    f"The coalescer did not finish {day.storage_day}: {' '.join(summary.failures)}",
                    next_step="Fix what it names, then run the demo again; or remove the demo's folder first.",
                )
            report(f"{day.storage_day}: {summary.before.objects} objects became {summary.after.objects}")


def print_result(result: DayResult, named: str = "") -> None:
    """Print one line on stderr: how a day, or what is `named`, ended."""
    style = "green" if result.status == "SUCCESS" else "yellow"
    named = named or str(result.storage_day)
    progress_console().print(f"  {named}: [{style}]{result.status}[/] in {result.seconds:.0f} s")


_HEADINGS = (
    *("storage day", "export day", "result"),
    *("read", "published", "rejected", "tables", "input", "output", "seconds"),
)


def _print_results(console: Console, demo: DemoHome, results: list[DayResult], seconds: float) -> None:
    table = figures_table(f"{COLLECTION.id}: {len(results)} storage days in {seconds:.0f} s", _HEADINGS, words=3)
    for result in results:
        style = "green" if result.was_published else "yellow"
        days = (str(result.storage_day), str(result.export_day), f"[{style}]{result.status}[/]")
        table.add_row(*days, *_figures([result], result.seconds))
    table.add_section()
    published = sum(result.was_published for result in results)
    table.add_row(f"{len(results)} days", "", f"{published} published", *_figures(results, seconds), style="bold")
    console.print()
    console.print(table)
    for result in results:
        if not result.was_published:
            _print_failure(console, demo, result)
    _print_locations(console, demo, results)


def _figures(results: list[DayResult], seconds: float) -> tuple[str, ...]:
    published = [result for result in results if result.was_published]
    return (
        f"{sum(result.total('read') for result in results):,}",
        f"{sum(result.total('published') for result in published):,}",
        f"{sum(result.total('rejected') for result in results):,}",
        str(sum(len(result.tables.get("tables", ())) for result in published)),
        size_text(sum(result.total("input_bytes") for result in results)),
        size_text(sum(result.report.get("published_bytes", 0) for result in published)),
        f"{seconds:.0f}",
    )


def _print_failure(console: Console, demo: DemoHome, result: DayResult) -> None:
    console.print(f"[bold]{result.storage_day} published nothing, and that is the point:[/] {result.status}")
    rows = [("cause", str(result.failure.get("cause", "")))]
    rejects_prefix = result.report.get("rejects_prefix")
    if rejects_prefix:
        reasons = result.report["totals"]["rejected_by_reason"].items()
        rows = [
            ("rejected", f"{result.total('rejected')}: " + ", ".join(f"{count} {reason}" for reason, count in reasons)),
            ("rejects in", demo.published.uri(rejects_prefix)),
        ]
    rows += [
        ("next step", str(result.failure.get("next_step", ""))),
        ("runbook", f"docs/runbook.md#{result.status.lower()}"),
    ]
    console.print(facts(rows))
    console.print()


def _print_locations(console: Console, demo: DemoHome, results: list[DayResult]) -> None:
    published = [result for result in results if result.was_published]
    rows = [
        (
            f"records of {result.storage_day}",
            demo.published.uri(daily_records_prefix(COLLECTION.on(result.storage_day))),
        )
        for result in published[:1]
    ]
    names = [
        f"{table['name']} ({table['rows']:,} rows)" for result in published[:1] for table in result.tables["tables"]
    ]
    if names:
        rows += [
            (f"tables of {published[0].storage_day}" if not number else "", name) for number, name in enumerate(names)
        ]
    rows += [
        ("status rows in", str(demo.settings.status_path)),
        ("everything in", str(demo.folder)),
        ("see it", "make dev, then http://127.0.0.1:3000"),
        ("or by cdi", f". .venv/bin/activate; export CDI_HOME={shlex.quote(str(demo.folder))}"),
    ]
    console.print("[bold]Where to look[/]")
    console.print(facts(rows))


def _require_expected(demo: DemoHome, results: list[DayResult]) -> None:
    """Raise where a day did not end as its sample data must."""
    for day, result in zip(demo.days, results, strict=True):
        require_status(demo, result, FailureClass.RECORDS_REJECTED if day.bad_envelopes else "SUCCESS")


def require_status(demo: DemoHome, result: DayResult, expected: str = "SUCCESS") -> None:
    """Return where a run ended as its sample data must.

    Raises:
        CdiError: with which it failed, or JOB_FAILED.
    """
    if result.status != expected:
        failure = CdiError.from_json(result.failure) if result.failure else None
        raise failure or CdiError(
            FailureClass.JOB_FAILED,
            f"Storage day {result.storage_day} ended in {escape(result.status)}, not in {expected}.",
            next_step=f"Open the UI (cdi dev --home {demo.folder}) on run {result.run_id}; the log is in "
            f"{demo.folder / 'logs'}.",
        )
