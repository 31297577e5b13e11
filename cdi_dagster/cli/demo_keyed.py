"""`cdi demo --keyed`: two weeks of a keyed collection until the snapshots of two Fridays and their tables are there.

The home, the runs and what brings Dagster up are those of `cdi demo`; this module has what is different.
"""

import shlex
import time
from dataclasses import asdict

from rich.console import Console

from cdi_dagster.cli.console import facts, figures_table, print_json, progress, progress_console, result_console
from cdi_dagster.cli.demo import dagster_with_days, print_result, require_status
from cdi_dagster.cli.demo_home import DemoHome
from cdi_dagster.cli.demo_runs import DayResult, materialise, materialise_days
from cdi_dagster.core.storage_keys import all_daily_rows_prefix, snapshot_prefix


def run_keyed_demo(demo: DemoHome, records: int, *, as_json: bool) -> None:
    """Run it and print what it published.

    Raises:
        CdiError: a day or snapshot failed.
    """
    started = time.monotonic()
    _print_opening(demo)
    with dagster_with_days(demo, records) as (webserver, dagster):
        days: list[DayResult] = []
        results = materialise_days(demo, webserver, dagster)
        while len(days) < len(demo.days):
            with progress(f"Ingesting by one backfill: {len(days)} of {len(demo.days)} storage days are done"):
                days.append(next(results))
            print_result(days[-1])
            require_status(demo, days[-1])
        snapshots: list[DayResult] = []
        for day in demo.snapshots:
            with progress(f"Making the snapshot of Friday {day.export_day}, and its tables") as report:
                result = materialise(demo, webserver, dagster, day, report, snapshot=True)
            print_result(result, f"snapshot of {day.export_day}")
            require_status(demo, result)
            snapshots.append(result)
    days.sort(key=lambda result: result.storage_day)
    seconds = time.monotonic() - started
    if as_json:
        of_fridays = [{"export_day": result.export_day, **asdict(result)} for result in snapshots]
        values = {"home": str(demo.folder), "seconds": seconds}
        print_json({**values, "days": [asdict(result) for result in days], "snapshots": of_fridays})
    else:
        _print_results(result_console(), demo, days, snapshots, seconds)


def _print_opening(demo: DemoHome) -> None:
    console = progress_console()
    first, last = demo.snapshots
    console.print(
        f"[bold]Two weeks of {demo.collection.id}, {demo.days[0].storage_day} to {demo.days[-1].storage_day}, invented "
        "and encrypted, go through the real software, here:[/]"
    )
    rows = [
        ("1 write", "inserts, updates and deletes of ids, as K2HB writes them"),
        ("2 coalesce", "small objects become few and large, as every night"),
        ("3 ingest", "each day through Dagster, by one backfill: gate, pin, decrypt and clean in Spark, publish rows"),
        ("4 snapshot", f"of Friday {first.export_day} and of {last.export_day}, from that one: one row an id; tables"),
    ]
    console.print(facts(rows))
    console.print(
        f"It takes minutes, on a busy machine half an hour: each of the {len(demo.days)} days starts a Spark of its "
        "own, and each snapshot two, for itself and for its tables.\n"
    )


def _print_results(
    console: Console, demo: DemoHome, days: list[DayResult], snapshots: list[DayResult], seconds: float
) -> None:
    title = f"{demo.collection.id}: {len(days)} storage days in {seconds:.0f} s"
    table = figures_table(title, ["storage day", "export day", "events", "INSERT", "DELETE", "seconds"], words=2)
    for result in days:
        of_day = (str(result.storage_day), str(result.export_day), f"{result.total('read'):,}")
        table.add_row(*of_day, *_by_type(result.report["db_types"]), f"{result.seconds:.0f}")
    console.print()
    console.print(table)
    headings = ["snapshot", "base", "days", "rows in", "INSERT", "DELETE", "tables", "seconds"]
    table = figures_table(f"{len(snapshots)} snapshots: one row an id", headings, words=2)
    for result in snapshots:
        report, tables = result.report, result.tables.get("tables", ())
        made = (
            report["export_day"],
            report["base"] or "none",
            str(len(report["days"])),
            f"{result.total('rows_in'):,}",
        )
        table.add_row(*made, *_by_type(report["rows"]), str(len(tables)), f"{result.seconds:.0f}")
    console.print(table)
    _print_locations(console, demo, snapshots)


def _by_type(rows: dict[str, int]) -> tuple[str, str]:
    return f"{rows.get('INSERT', 0):,}", f"{rows.get('DELETE', 0):,}"


def _print_locations(console: Console, demo: DemoHome, snapshots: list[DayResult]) -> None:
    last = demo.snapshots[-1]
    names = [f"{table['name']} ({table['rows']:,} rows)" for table in snapshots[-1].tables["tables"]]
    of, home = f"--collection {demo.collection.id}", shlex.quote(str(demo.folder))
    rows = [
        ("daily rows in", demo.published.uri(all_daily_rows_prefix(demo.collection))),
        (f"snapshot of {last.export_day}", demo.published.uri(snapshot_prefix(last))),
        *(("its tables" if not number else "", name) for number, name in enumerate(names)),
        ("everything in", str(demo.folder)),
        ("see it", f".venv/bin/cdi dev --home {home}, then http://127.0.0.1:3000"),
        ("or by cdi", f". .venv/bin/activate; export CDI_HOME={home}"),
        ("", f"cdi status {of}: the days, and the snapshots of their Fridays"),
        ("", f"cdi show {of} --export-day {last.export_day}: base, days, rows and runs of a snapshot"),
        ("", f"cdi show {of} --storage-day {last.storage_day}: rows of a day"),
        ("read about it", "docs/snapshots.md"),
    ]
    console.print("[bold]Where to look[/]")
    console.print(facts(rows))
