"""`cdi clusters`: our clusters on EMR, the run of each, and how to terminate those that no run follows any more."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cdi_dagster.cli.console import figures_table, json_option, print_json, progress_console, result_console
from cdi_dagster.cli.dagster_home import open_instance
from cdi_dagster.core.amounts import duration_text
from cdi_dagster.core.failures import CdiError, FailureClass

if TYPE_CHECKING:
    import dagster as dg

    from cdi_dagster.emr.clusters.orphans import FoundRun, ListedCluster

_ROOT_RUN_TAG = "dagster/root_run_id"
LookUp = Callable[[str], "FoundRun"]


@click.command("clusters")
@click.option("--terminate-orphans", is_flag=True, help="Terminate those whose run has ended, after a confirmation.")
@click.option("--yes", is_flag=True, help="With --terminate-orphans: no confirmation.")
@click.option(
    "--min-age-minutes",
    type=click.IntRange(min=0),
    default=45,
    show_default=True,
    help="A cluster that started, or whose run ended, less long ago is no orphan: the day is run again after 20 "
    "minutes at most, and takes it up.",
)
@json_option
def clusters_command(terminate_orphans: bool, yes: bool, min_age_minutes: int, as_json: bool) -> None:
    """List the clusters that we started and that have not ended, with the run each belongs to.

    The runs are looked up in the Dagster of DAGSTER_HOME. A cluster is an orphan only if that Dagster knows its run,
    neither the run nor any retry of it is live, the last of them ended long enough ago (--min-age-minutes), and it
    does not just idle until the next run's step (CDI_EMR_IDLE_SECONDS): others are never terminated from here.
    """
    from cdi_dagster.emr.backend import UnreachableError
    from cdi_dagster.emr.clusters.api import EmrApi
    from cdi_dagster.emr.clusters.orphans import Standing, list_clusters
    from cdi_dagster.emr.resume import NAME_PREFIX
    from cdi_dagster.settings import load_settings

    if terminate_orphans and not os.environ.get("DAGSTER_HOME"):
        raise click.UsageError("DAGSTER_HOME is not set, so it is not known which runs are live: set it first")
    if terminate_orphans and as_json and not yes:
        raise click.UsageError("--json takes no confirmation: add --yes")
    settings = load_settings()  # before the client: they have its region
    api = EmrApi()
    try:
        with _look_up() as look_up:

            def listed_now() -> "list[ListedCluster]":
                return list_clusters(
                    api.our_clusters(name_prefix=NAME_PREFIX),
                    look_up,
                    now=datetime.now(UTC),
                    min_age_seconds=min_age_minutes * 60,
                    idle_seconds=settings.emr_idle_seconds,
                )

            listed = listed_now()
            orphans = [cluster.cluster_id for cluster in listed if cluster.standing is Standing.ORPHAN]
            if not as_json:
                _show(listed)
            ended: list[str] = []
            if terminate_orphans and orphans and (yes or _agreed(orphans)):
                # A run may have taken one up while the question was open.
                still = {each.cluster_id for each in listed_now() if each.standing is Standing.ORPHAN}
                ended = [cluster_id for cluster_id in orphans if cluster_id in still]
                for cluster_id in sorted(set(orphans) - still):
                    progress_console().print(f"{cluster_id} is no orphan any more; it is left alone.")
            for cluster_id in ended:
                api.terminate(cluster_id)
    except UnreachableError as error:
        raise CdiError(
            FailureClass.LAUNCH_FAILED,
            f"EMR did not respond: {error}",
            next_step="Check the AWS credentials and region of this shell (`cdi doctor`), then try again.",
        ) from error
    if as_json:
        print_json({"clusters": [asdict(c) for c in listed], "terminated": ended})
    elif ended:
        result_console().print(f"Terminating {', '.join(ended)}.")


@contextmanager
def _look_up() -> Iterator[LookUp]:
    """Yield the look-up of a run in the Dagster of DAGSTER_HOME."""
    from cdi_dagster.emr.clusters.orphans import FoundRun, RunLiveness

    home = os.environ.get("DAGSTER_HOME")
    if not home:
        yield lambda _: FoundRun(liveness=RunLiveness.NOT_LOOKED_UP)
        return
    with open_instance(Path(home)) as instance:
        if instance is None:
            raise click.UsageError(
                f"no Dagster has started yet in DAGSTER_HOME, {home}: set it to the home of the one that runs the days"
            )
        yield partial(_found_run, instance)


def _found_run(instance: "dg.DagsterInstance", run_id: str) -> "FoundRun":
    import dagster as dg

    from cdi_dagster.emr.clusters.orphans import FoundRun, RunLiveness

    run = instance.get_run_by_id(run_id)
    if run is None:
        return FoundRun(liveness=RunLiveness.UNKNOWN)
    # A retry resumes its parent's cluster, and the cluster may keep the parent's tag.
    root_id = run.root_run_id or run_id
    filters = dg.RunsFilter(run_ids=[run_id, root_id]), dg.RunsFilter(tags={_ROOT_RUN_TAG: root_id})
    family = [record for each in filters for record in instance.get_run_records(each)]
    if any(not record.dagster_run.is_finished for record in family):
        return FoundRun(liveness=RunLiveness.LIVE)
    # One that ended before it began has no end of its own.
    ends = (record.end_time or record.update_timestamp.timestamp() for record in family)
    return FoundRun(liveness=RunLiveness.ENDED, ended_at=datetime.fromtimestamp(max(ends), UTC))


def _show(listed: "list[ListedCluster]") -> None:
    if not listed:
        result_console().print("No cluster of ours is running.")
        return
    table = figures_table(None, ["cluster", "state", "age", "collection", "storage day", "run", "standing"])
    for cluster in listed:
        table.add_row(
            cluster.cluster_id,
            cluster.state,
            duration_text(cluster.age_seconds),
            cluster.collection,
            cluster.storage_day,
            f"{cluster.run_id[:8]} ({_run_text(cluster)})",
            cluster.standing,
        )
    result_console().print(table)


def _run_text(cluster: "ListedCluster") -> str:
    ago = cluster.run_ended_seconds_ago
    return cluster.run_state if ago is None else f"{cluster.run_state} {duration_text(ago)} ago"


def _agreed(orphans: list[str]) -> bool:
    return click.confirm(f"Terminate {len(orphans)} cluster(s): {', '.join(orphans)}?", err=True)
