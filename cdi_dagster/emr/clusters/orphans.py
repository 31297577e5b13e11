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


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """What a look-up of a run and its retries found; `ended_at` is when the last of them ended (aware, UTC)."""

    liveness: RunLiveness
    ended_at: datetime | None = None


class Standing(StrEnum):
    """What that makes of the cluster."""

    FOLLOWED = "followed"
    ORPHAN = "orphan"
    MAY_BE_RETRIED = "may be retried"
    """Its run has ended, too recently for the wait before a retry to be over."""
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
    run_ended_seconds_ago: float | None
    standing: Standing


def list_clusters(
    clusters: list[OurCluster],
    look_up: Callable[[str], FoundRun],
    *,
    now: datetime,
    min_age_seconds: float,
    idle_seconds: float,
) -> list[ListedCluster]:
    """Return those that carry our tag, oldest first, each with its standing.

    Args:
        clusters: by name; a name alone proves nothing.
        look_up: looks a run up in Dagster.
        now: aware, UTC.
        min_age_seconds: so long a cluster without a live run waits for a retry to take it up: from its start, or from
            the end of its run where that is later.
        idle_seconds: for so long a cluster may wait for the next step.
    """
    listed = []
    for cluster in sorted(clusters, key=lambda cluster: cluster.created_at):
        if cluster.tags.get(TAG_PRODUCT) != PRODUCT:
            continue
        run_id = cluster.tags.get(TAG_RUN_ID, "")
        run = look_up(run_id) if run_id else FoundRun(liveness=RunLiveness.UNKNOWN)
        age = (now - cluster.created_at).total_seconds()
        run_ended_ago = (now - run.ended_at).total_seconds() if run.ended_at else None
        left_for = age if run_ended_ago is None else min(age, run_ended_ago)
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
                run_state=run.liveness,
                run_ended_seconds_ago=run_ended_ago,
                standing=_standing(
                    cluster.state, run.liveness, may_be_retried=left_for < min_age_seconds, is_idle=is_idle
                ),
            )
        )
    return listed


def _standing(cluster_state: str, run_state: RunLiveness, *, may_be_retried: bool, is_idle: bool) -> Standing:
    if cluster_state == "TERMINATING":
        return Standing.ENDING
    without_run = Standing.MAY_BE_RETRIED if may_be_retried else Standing.ORPHAN
    by_run: Mapping[RunLiveness, Standing] = {
        RunLiveness.LIVE: Standing.FOLLOWED,
        RunLiveness.ENDED: Standing.IDLE if is_idle else without_run,
    }
    return by_run.get(run_state, Standing.UNKNOWN)
