"""`cdi rejects show` and `cdi rejects replay`: where rejects came from, and ingesting them again once fixed."""

from collections import Counter
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

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
from cdi_dagster.storage import Storage, open_storage

if TYPE_CHECKING:
    from cdi_dagster.cli.local_run import LocalRun


@click.group("rejects")
def rejects_group() -> None:
    """Look at the rejected records of a day, and ingest them again once their cause is fixed."""


@rejects_group.command("show")
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
    """Count a run's rejects by reason and list where they are: object, line, offset. Never content."""
    from cdi_dagster.spark.ingest.rejects import stored_rejects

    published = _published(published_root)
    run = correlation_id or _last_run_with_rejects(published, collection.on(storage_day))
    prefix = rejects_prefix(collection.on(storage_day), run) if run else None
    reasons: Counter[str] = Counter()
    listed: list[dict[str, Any]] = []
    for stored in stored_rejects(published, prefix):
        reasons[stored.reason] += 1
        if len(listed) < limit:
            location = {"reason": stored.reason, "detail": stored.detail, "key": stored.key}
            listed.append({**location, "line_number": stored.line_number, "offset": stored.offset})
    if as_json:
        print_json({"correlation_id": run, "rejected": reasons.total(), "by_reason": dict(reasons), "places": listed})
        return
    console = result_console()
    if not reasons:
        console.print(escape(_no_rejects(published, collection.on(storage_day), correlation_id)))
        return
    by_reason = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    console.print(
        facts(
            [("run", run or ""), ("rejected", f"{reasons.total():,}: {by_reason}"), ("in", published.uri(prefix or ""))]
        )
    )
    table = figures_table(None, ("object", "line", "offset", "reason", "detail"))
    for reject in listed:
        name = reject["key"].rsplit("/", 1)[-1]
        offset = "" if reject["offset"] is None else str(reject["offset"])
        table.add_row(name, str(reject["line_number"]), offset, reject["reason"], reject["detail"])
    console.print(table)


@rejects_group.command("replay")
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
    published records stay, and the new ones are added to them, in one publication. The tables do not change until
    they are published again (cdi tables). A day that was not published at all is run again instead.
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


def _no_rejects(published: Storage, day: CollectionDay, correlation_id: str | None) -> str:
    """Return whether nothing was rejected, or there was no run that could have."""
    runs = runs_prefix(day)
    prefix = run_prefix(day, correlation_id) if correlation_id else runs
    if next(iter(published.list(prefix)), None) is None:
        run = f"run {correlation_id}" if correlation_id else "run"
        return f"No {run} of {day} was found: there is nothing under {published.uri(prefix)}"
    return f"No rejects are kept of {day}."


def _last_run_with_rejects(published: Storage, day: CollectionDay) -> str | None:
    """Return the run whose rejects were written last."""
    prefix = runs_prefix(day)
    kept = [stored for stored in published.list(prefix) if f"/{REJECTS_FOLDER}" in stored.key]
    if not kept:
        return None
    last = max(kept, key=lambda stored: stored.modified_at)
    return last.key.removeprefix(prefix).split("/", 1)[0]
