"""`cdi rejects show` and `cdi rejects replay`: where rejects came from, and ingesting them again once fixed."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.text import Text

from cdi_dagster.cli.console import facts, figures_table, json_option, print_json, progress, result_console
from cdi_dagster.cli.options import (
    collection_option,
    correlation_id_option,
    given,
    published_root_option,
    storage_day_option,
)
from cdi_dagster.core.collections import Collection, CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import REJECTS_FOLDER, rejects_prefix, run_prefix, runs_prefix
from cdi_dagster.published.runs import last_run
from cdi_dagster.storage import Storage, open_storage

if TYPE_CHECKING:
    from cdi_dagster.cli.local_run import LocalRun
    from cdi_dagster.spark.ingest.reject_counts import RejectCounts

_MOST_SHOWN = 10
"""Of keys, shapes and objects; with --json all of them."""


@click.group("rejects")
def rejects_group() -> None:
    """Look at the rejected records of a day, and ingest them again once their cause is fixed."""


@rejects_group.command("show", short_help="Show where the rejects of a day came from.")
@published_root_option()
@collection_option()
@storage_day_option()
@correlation_id_option("Id of the run. Default: the last run of the day that kept rejects.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Rejects to list.")
@json_option
def show_command(
    published_root: str | None,
    collection: Collection,
    storage_day: date,
    correlation_id: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Count a run's rejects by reason, key, shape and object, and list where they are: never content.

    The key is the one of the key service that the envelope names; the shape is which of the usual fields it has.
    """
    from cdi_dagster.spark.ingest.reject_counts import RejectCounts, key_id_of_reject
    from cdi_dagster.spark.ingest.rejects import stored_rejects

    published = _published(published_root)
    last = None if correlation_id else last_run(published, collection.on(storage_day), wrote=REJECTS_FOLDER)
    run = correlation_id or (last[0] if last else None)
    _require_run(published, collection.on(storage_day), correlation_id)
    prefix = rejects_prefix(collection.on(storage_day), run) if run else None
    counts = RejectCounts()
    listed: list[dict[str, Any]] = []
    for stored in stored_rejects(published, prefix):
        counts.add(stored)
        if len(listed) < limit:
            place = {"line_number": stored.line_number, "offset": stored.offset, "key_id": key_id_of_reject(stored)}
            listed.append({"reason": stored.reason, "detail": stored.detail, "key": stored.key, **place})
    advice = _advice(counts)
    if as_json:
        by = {name: dict(counter.most_common()) for name, counter in vars(counts).items() if name.startswith("by_")}
        print_json(
            {"correlation_id": run, "rejected": counts.by_reason.total(), **by, "advice": advice, "places": listed}
        )
    elif counts.by_reason:
        _show(counts, listed, run or "", published.uri(prefix or ""), advice)
    else:
        result_console().print(escape(f"No rejects are kept of {collection.on(storage_day)}."))


def _show(counts: "RejectCounts", listed: Sequence[dict[str, Any]], run: str, prefix: str, advice: str | None) -> None:
    console = result_console()
    by_reason = ", ".join(f"{count:,} {reason}" for reason, count in counts.by_reason.most_common())
    rows = [("run", run), ("rejected", f"{counts.by_reason.total():,}: {by_reason}"), ("in", prefix)]
    console.print(facts([*rows, *([("next step", advice)] if advice else [])]))
    for heading, counter in (
        ("key of the key service", counts.by_key_id),
        ("shape of the envelope", counts.by_shape),
        ("object", counts.by_object),
    ):
        counted = figures_table(None, (heading, "rejects"))
        for name, count in counter.most_common(_MOST_SHOWN):
            counted.add_row(Text(name.rpartition("/")[2] if counter is counts.by_object else name), f"{count:,}")
        if len(counter) > _MOST_SHOWN:
            counted.add_row(f"{len(counter) - _MOST_SHOWN:,} more", "")
        if counter:
            console.print(counted)
    table = figures_table(None, ("object", "line", "offset", "reason", "detail"))
    for reject in listed:
        offset = "" if reject["offset"] is None else str(reject["offset"])
        name = reject["key"].rsplit("/", 1)[-1]
        table.add_row(Text(name), str(reject["line_number"]), offset, reject["reason"], Text(reject["detail"]))
    console.print(table)


def _advice(counts: "RejectCounts") -> str | None:
    """Return what to do where all rejects have one cause: a key that the key service cannot use."""
    key_id = counts.key_to_restore
    if key_id is None:
        return None
    return (
        f"All {counts.by_reason.total():,} were rejected for one key, {key_id}: have it restored in the key service "
        "(Data Key Service team), then run the day again, or cdi rejects replay where it is published. A higher "
        "max_rejected would publish the day without them."
    )


@rejects_group.command("replay", short_help="Ingest the rejects of a published day again.")
@published_root_option()
@collection_option()
@storage_day_option()
@click.option("--dks-url", metavar="URL", help="Data Key Service. Default: CDI_DKS_URL, else where cdi dks listens.")
@json_option
def replay_command(
    published_root: str | None, collection: Collection, storage_day: date, dks_url: str | None, as_json: bool
) -> None:
    """Ingest the rejects of a published day again and publish what becomes a record now.

    For a day that was published with rejects, once their cause is fixed (for example, a key was restored). The
    published records stay, and the new ones are added to them, in one publication. Automation then
    publishes the tables of a day of the look-back; publish those of an older day by cdi tables, on EMR by
    Materialize. A day that was not published at all is run again instead.
    """
    from cdi_dagster.cli.local_run import LocalRun, only_this_run, record
    from cdi_dagster.spark.ingest.replay import begin_replay, replay_rejects
    from cdi_dagster.spark.key_service.client import KeyServiceConfig

    run = LocalRun.of(collection.on(storage_day), **given(published_root=published_root, dks_url=dks_url))
    published = run.roots.published
    config = KeyServiceConfig(correlation_id=run.correlation_id, **asdict(run.settings.key_service))
    with only_this_run(run):
        publication = begin_replay(published, collection.on(storage_day), run.correlation_id)
        with record(run, "replay_rejects") as row, progress(f"Trying {publication.report.rejected:,} rejects again"):
            summary = replay_rejects(publication, published, config)
            row.daily_records_uri = run.uri(summary.report.published_prefix)
            row.await_tables(published)
            row.detail |= {**summary.report.totals, "replayed": summary.replayed, "recovered": summary.recovered}
    if as_json:
        result = {
            "replayed": summary.replayed,
            "recovered": summary.recovered,
            "still_rejected": summary.still_rejected,
        }
        print_json({"correlation_id": config.correlation_id, **result, "published": summary.report.published})
    else:
        still = ", ".join(f"{count:,} {reason}" for reason, count in summary.still_rejected.items()) or "none"
        rows = [
            ("replayed", f"{summary.replayed:,}"),
            ("recovered", f"{summary.recovered:,}"),
            ("still rejected", still),
        ]
        if summary.recovered:
            rows.append(("published", f"{summary.report.published:,} records now"))
            if run.day.collection.tables:
                rows.append(("tables", f"as before; to publish them again: {_tables_command(run)}"))
        result_console().print(facts(rows))
    if summary.replayed and not summary.recovered:
        raise CdiError(
            FailureClass.RECORDS_REJECTED,
            f"All {summary.replayed:,} rejects were rejected again; the publication is as it was.",
            next_step="Read the reasons (cdi rejects show), fix the cause, then replay again.",
        )


def _tables_command(run: "LocalRun") -> str:
    if run.settings.deployment == "local":
        return f"cdi tables --collection {run.day.collection.id} --storage-day {run.day.storage_day}"
    return "materialise them in the Dagster UI"


def _published(published_root: str | None) -> Storage:
    from cdi_dagster.settings import load_settings

    return open_storage(load_settings(**given(published_root=published_root)).published_root)


def _require_run(published: Storage, day: CollectionDay, correlation_id: str | None) -> None:
    """Exit 1 where there was no run that could have kept rejects."""
    runs = runs_prefix(day)
    prefix = run_prefix(day, correlation_id) if correlation_id else runs
    if next(iter(published.list(prefix)), None) is None:
        run = f"run {correlation_id}" if correlation_id else "run"
        raise click.ClickException(f"No {run} of {day} was found: there is nothing under {published.uri(prefix)}")
