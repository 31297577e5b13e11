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

from cdi_dagster.cli.console import figures_table, json_option, print_json, result_console
from cdi_dagster.cli.dagster_home import open_instance
from cdi_dagster.core.amounts import duration_text
from cdi_dagster.core.failures import CdiError, FailureClass

if TYPE_CHECKING:
    import dagster as dg

    from cdi_dagster.emr.clusters.orphans import ListedCluster, RunLiveness

_ROOT_RUN_TAG = "dagster/root_run_id"
RunLivenessOf = Callable[[str], "RunLiveness"]


@click.command("clusters")
@click.option("--terminate-orphans", is_flag=True, help="Terminate those whose run has ended, after a confirmation.")
@click.option("--yes", is_flag=True, help="With --terminate-orphans: no confirmation.")
@click.option(
    "--min-age-minutes",
    type=click.IntRange(min=0),
    default=15,
    show_default=True,
    help="A younger cluster is no orphan: its run may be about to be retried.",
)
@json_option
def clusters_command(terminate_orphans: bool, yes: bool, min_age_minutes: int, as_json: bool) -> None:
    """List the clusters that we started and that have not ended, with the run each belongs to.

    The runs are looked up in the Dagster of DAGSTER_HOME. A cluster is an orphan only if that Dagster knows its run,
    neither the run nor any retry of it is live, and it does not just idle until the next run's step
    (CDI_EMR_IDLE_SECONDS): others are never terminated from here.
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
        with _run_states() as run_state:
            listed = list_clusters(
                api.our_clusters(name_prefix=NAME_PREFIX),
                run_state,
                now=datetime.now(UTC),
                min_age_seconds=min_age_minutes * 60,
                idle_seconds=settings.emr_idle_seconds,
            )
        orphans = [cluster for cluster in listed if cluster.standing is Standing.ORPHAN]
        if not as_json:
            _show(listed)
        ended = orphans if terminate_orphans and orphans and (yes or _agreed(orphans)) else []
        for cluster in ended:
            api.terminate(cluster.cluster_id)
    except UnreachableError as error:
        raise CdiError(
            FailureClass.LAUNCH_FAILED,
            f"EMR did not respond: {error}",
            next_step="Check the AWS credentials and region of this shell (`cdi doctor`), then try again.",
        ) from error
    if as_json:
        print_json({"clusters": [asdict(c) for c in listed], "terminated": [c.cluster_id for c in ended]})
    elif ended:
        result_console().print(f"Terminating {', '.join(cluster.cluster_id for cluster in ended)}.")


@contextmanager
def _run_states() -> Iterator[RunLivenessOf]:
    """Yield the look-up of a run in the Dagster of DAGSTER_HOME."""
    from cdi_dagster.emr.clusters.orphans import RunLiveness

    home = os.environ.get("DAGSTER_HOME")
    if not home:
        yield lambda _: RunLiveness.NOT_LOOKED_UP
        return
    with open_instance(Path(home)) as instance:
        if instance is None:
            raise click.UsageError(
                f"no Dagster has started yet in DAGSTER_HOME, {home}: set it to the home of the one that runs the days"
            )
        yield partial(_state_of, instance)


def _state_of(instance: "dg.DagsterInstance", run_id: str) -> "RunLiveness":
    import dagster as dg

    from cdi_dagster.emr.clusters.orphans import RunLiveness

    run = instance.get_run_by_id(run_id)
    if run is None:
        return RunLiveness.UNKNOWN
    # A retry resumes its parent's cluster, and the cluster may keep the parent's tag.
    root_id = run.root_run_id or run_id
    family = (run, instance.get_run_by_id(root_id), *instance.get_runs(dg.RunsFilter(tags={_ROOT_RUN_TAG: root_id})))
    return RunLiveness.LIVE if any(one is not None and not one.is_finished for one in family) else RunLiveness.ENDED


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
            f"{cluster.run_id[:8]} ({cluster.run_state})",
            cluster.standing,
        )
    result_console().print(table)


def _agreed(orphans: "list[ListedCluster]") -> bool:
    return click.confirm(f"Terminate {len(orphans)} cluster(s): {', '.join(c.cluster_id for c in orphans)}?", err=True)
