"""Which of our clusters nobody follows any more. Pure, and careful: what is not known to be an orphan is not one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cdi_dagster.emr.clusters.api import OurCluster
from cdi_dagster.emr.clusters.request import PRODUCT, TAG_COLLECTION, TAG_PRODUCT, TAG_RUN_ID, TAG_STORAGE_DAY


class RunLiveness(StrEnum):
    """What Dagster knows of the run that a cluster belongs to, and of that run's retries."""

    LIVE = "live"
    ENDED = "ended"
    UNKNOWN = "unknown"
    """Not in this Dagster: another installation's, perhaps, or deleted."""
    NOT_LOOKED_UP = "not looked up"


class Standing(StrEnum):
    """What that makes of the cluster."""

    FOLLOWED = "followed"
    ORPHAN = "orphan"
    TOO_YOUNG = "too young"
    IDLE = "idle"
    """Its run has ended, and it waits for the next step, or for EMR to end it when it has idled for its time."""
    ENDING = "ending"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class ListedCluster:
    """One of our clusters, for a person."""

    cluster_id: str
    name: str
    state: str
    age_seconds: float
    collection: str
    storage_day: str
    run_id: str
    run_state: RunLiveness
    standing: Standing


def list_clusters(
    clusters: list[OurCluster],
    run_state: Callable[[str], RunLiveness],
    *,
    now: datetime,
    min_age_seconds: float,
    idle_seconds: float,
) -> list[ListedCluster]:
    """Return those that carry our tag, oldest first, each with its standing.

    Args:
        clusters: by name; a name alone proves nothing.
        run_state: looks a run up in Dagster.
        now: aware, UTC.
        min_age_seconds: a younger cluster may belong to a run that is just being retried.
        idle_seconds: for so long a cluster may wait for the next step.
    """
    listed = []
    for cluster in sorted(clusters, key=lambda cluster: cluster.created_at):
        if cluster.tags.get(TAG_PRODUCT) != PRODUCT:
            continue
        run_id = cluster.tags.get(TAG_RUN_ID, "")
        state = run_state(run_id) if run_id else RunLiveness.UNKNOWN
        age = (now - cluster.created_at).total_seconds()
        is_idle = cluster.idle_since is not None and (now - cluster.idle_since).total_seconds() <= idle_seconds
        listed.append(
            ListedCluster(
                cluster_id=cluster.cluster_id,
                name=cluster.name,
                state=cluster.state,
                age_seconds=age,
                collection=cluster.tags.get(TAG_COLLECTION, ""),
                storage_day=cluster.tags.get(TAG_STORAGE_DAY, ""),
                run_id=run_id,
                run_state=state,
                standing=_standing(cluster.state, state, is_young=age < min_age_seconds, is_idle=is_idle),
            )
        )
    return listed


def _standing(cluster_state: str, run_state: RunLiveness, *, is_young: bool, is_idle: bool) -> Standing:
    if cluster_state == "TERMINATING":
        return Standing.ENDING
    without_run = Standing.TOO_YOUNG if is_young else Standing.ORPHAN
    by_run: Mapping[RunLiveness, Standing] = {
        RunLiveness.LIVE: Standing.FOLLOWED,
        RunLiveness.ENDED: Standing.IDLE if is_idle else without_run,
    }
    return by_run.get(run_state, Standing.UNKNOWN)
