"""Who may use or terminate a cluster that steps pass on to each other, and whether anybody needs it any longer.

A step that ended keeps its cluster for the next of its run, offers it to other runs, or terminates it; a step that
begins claims one that fits, by compare-and-swap. A claim saves the start of a cluster and nothing else: whoever has
none adds no step and terminates nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from cdi_dagster.emr.backend import Demand, UnreachableError
from cdi_dagster.emr.clusters.api import ClusterView, EmrApi
from cdi_dagster.emr.clusters.job_status import CLUSTER_ENDING
from cdi_dagster.emr.clusters.pool import ClusterPool, PoolEntry
from cdi_dagster.emr.clusters.request import TAG_DIGEST, TAG_PROFILE
from cdi_dagster.emr.clusters.template import ClusterTemplate
from cdi_dagster.emr.ledger import AttemptEntry
from cdi_dagster.emr.resume import NAME_PREFIX

_LOOKS = 4
"""How often at most: who claims what was listed may have left a cluster that was not on offer then."""
CLAIM_SECONDS = 120
"""A cluster that idles so long under a claim was claimed by a process that died."""
_FORGOTTEN_AFTER_SECONDS = 86_400
"""So old an entry is of a cluster that is gone. Of one that is not, it costs at most an idle time to forget it."""


class SharedClusters:
    """The clusters that one installation passes on. Methods raise UnreachableError unless they state otherwise."""

    def __init__(self, api: EmrApi, pool: ClusterPool, *, clock: Callable[[], float]) -> None:
        """Request nothing yet."""
        self._api = api
        self._pool = pool
        self._clock = clock

    def claims(self, attempt: AttemptEntry, digest: str, template: ClusterTemplate) -> Iterator[PoolEntry]:
        """Claim clusters that fit, one after the other: first what the attempt has already, then the smallest.

        Where EMR or the storage does not respond there is none: starting a cluster is always possible.
        """
        for _ in range(_LOOKS):
            others_were_faster = False
            for entry in self._fitting(attempt, digest, template):
                claimed = None
                with suppress(UnreachableError):
                    claimed = self._claim(entry, attempt)
                if claimed is not None:
                    yield claimed
                others_were_faster |= claimed is None and entry.claimed_by is None
            if not others_were_faster:
                return

    def _fitting(self, attempt: AttemptEntry, digest: str, template: ClusterTemplate) -> list[PoolEntry]:
        needed = template.profile(attempt.profile).size
        fitting = []
        with suppress(UnreachableError):
            for entry in self._pool.entries():
                if self._clock() - entry.since > _FORGOTTEN_AFTER_SECONDS:
                    self._pool.forget(entry.cluster_id)
                elif entry.digest == digest and (size := template.profile(entry.profile).size) >= needed:
                    fitting.append((entry.claimed_by not in _own_claims(attempt), size, -entry.since, entry))
        return [entry for *_, entry in sorted(fitting, key=lambda found: found[:3])]

    def hold(self, attempt: AttemptEntry, view: ClusterView) -> PoolEntry | None:
        """Return the entry of a cluster that this attempt, and no other, may pass on or terminate; else None."""
        entry = self._pool.entry(view.cluster_id)
        if entry is None and view.name == attempt.name:
            # Started for it, and never passed on. What it was made of is on the cluster: the template may be newer.
            return PoolEntry(
                cluster_id=view.cluster_id,
                digest=view.tags.get(TAG_DIGEST, ""),
                profile=view.tags.get(TAG_PROFILE, ""),
                since=self._clock(),
                claimed_by=attempt.name,
            )
        if entry is None or entry.claimed_by != attempt.name:
            return None
        return self._pool.claim(entry, attempt.name, now=self._clock())

    def release(self, attempt: AttemptEntry, demand: Demand) -> bool:
        """Offer the cluster of a step that is over, or terminate it; return whether that is known to be done.

        Where nobody needs any, terminate those on offer, too: of runs that end at once each left one for the others.
        """
        cluster_id = str(attempt.compute_id)
        view = self._api.observe(cluster_id, attempt.name)
        if view.state not in CLUSTER_ENDING:
            held = self.hold(attempt, view)
            if held is None:
                return True
            if view.has_other_steps or self._is_wanted(demand, cluster_id):
                # Reserved between two steps of a run: another run would leave it one of another size.
                keeper = _reserved(attempt) if demand.by_this_run else None
                offered = replace(held, claimed_by=keeper, since=self._clock())
                return self._pool.replace(held, offered) or self._pool.replace(None, offered)
            self._api.terminate(cluster_id)
            if self._api.observe(cluster_id, attempt.name).state not in CLUSTER_ENDING:
                return False
        self._pool.forget(cluster_id)
        if demand.is_none_at_all:
            self._terminate_offered(attempt)
        return True

    def _terminate_offered(self, attempt: AttemptEntry) -> None:
        with suppress(UnreachableError):  # what is left ends by its idle timeout
            for entry in self._pool.entries():
                if entry.claimed_by is None and self._claim(entry, attempt) is not None:
                    self._api.terminate(entry.cluster_id)
                    self._pool.forget(entry.cluster_id)

    def _claim(self, entry: PoolEntry, attempt: AttemptEntry) -> PoolEntry | None:
        now = self._clock()
        is_free = entry.claimed_by is None or entry.claimed_by in _own_claims(attempt)
        if not is_free and now - entry.since <= CLAIM_SECONDS:
            return None
        view = self._api.observe(entry.cluster_id, attempt.name)
        if view.state in CLUSTER_ENDING:
            self._pool.forget(entry.cluster_id)
            return None
        # The holder of one whose step has just ended is only about to see it.
        is_abandoned = now - max(entry.since, view.idle_since or 0) > CLAIM_SECONDS
        if view.has_other_steps or not (is_free or is_abandoned):
            return None
        return self._pool.claim(entry, attempt.name, now=now)

    def _is_wanted(self, demand: Demand, cluster_id: str) -> bool:
        """Whether the run needs it again, or other runs are live without a cluster: one for each is enough."""
        if demand.by_this_run or not demand.other_runs:
            return demand.by_this_run
        return demand.other_runs > len(self._api.live_clusters(name_prefix=NAME_PREFIX) - {cluster_id})


def _reserved(attempt: AttemptEntry) -> str:
    """Return who has a cluster between two steps of a run: the run."""
    return f"run {attempt.run_id}"


def _own_claims(attempt: AttemptEntry) -> tuple[str, str]:
    return attempt.name, _reserved(attempt)
