"""The clusters that were passed on by a step: idle ones on offer, and those that a later step has claimed.

One small object for each below `_control/clusters/` of the published root, replaced by compare-and-swap only. A cluster
appears when its first step gives it up; while it is claimed nobody else adds steps or terminates it. What is promised
of a launch does not rest on it: an entry that is lost costs the start of another cluster.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from cdi_dagster.core.storage_keys import clusters_prefix
from cdi_dagster.emr.backend import UnreachableError
from cdi_dagster.storage.interface import (
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    Storage,
    StorageError,
)


@dataclass(frozen=True, kw_only=True)
class PoolEntry:
    """One cluster. Times are epoch seconds.

    Attributes:
        cluster_id: EMR's.
        digest: of what it was made of (`request.cluster_digest`): a step fits only one made of the same.
        profile: of the ladder.
        since: when it was offered or claimed.
        claimed_by: name of the attempt that has it, or the run that has it between two of its steps; None while it is
            on offer.
    """

    cluster_id: str
    digest: str
    profile: str
    since: float
    claimed_by: str | None = None


class ClusterPool:
    """The entries in storage. All methods raise UnreachableError where it does not respond."""

    def __init__(self, storage: Storage) -> None:
        """Read nothing yet. `storage` is the published root."""
        self._storage = storage

    def entries(self) -> list[PoolEntry]:
        """Return all of them."""
        with _reached():
            keys = [stored.key for stored in self._storage.list(clusters_prefix())]
        found = (self.entry(key.rpartition("/")[2].removesuffix(".json")) for key in keys)
        return [entry for entry in found if entry is not None]

    def entry(self, cluster_id: str) -> PoolEntry | None:
        """Return the one of a cluster, if there is one."""
        with _reached():
            try:
                return PoolEntry(**json.loads(self._storage.read(_key(cluster_id))))
            except (ObjectMissingError, ValueError, TypeError):
                # One that this version cannot read is nothing that it could use.
                return None

    def claimed_by(self, attempt_name: str) -> list[PoolEntry]:
        """Return those that an attempt has."""
        return [entry for entry in self.entries() if entry.claimed_by == attempt_name]

    def replace(self, present: PoolEntry | None, newer: PoolEntry) -> bool:
        """Write an entry in place of the one that was read; return False where another process has written since."""
        key, data = _key(newer.cluster_id), json.dumps(asdict(newer)).encode()
        with _reached():
            try:
                if present is None:
                    self._storage.write(key, data, if_absent=True)
                    return True
                found = self._storage.head(key)
                if found is None or self.entry(newer.cluster_id) != present:
                    return False
                # Between the two reads another may have written: then the ETag is not that of what was compared.
                self._storage.write(key, data, if_match=found.etag)
            except (ObjectChangedError, ObjectExistsError, ObjectMissingError):
                # Storage may have responded to a retry of our own write.
                return self.entry(newer.cluster_id) == newer
        return True

    def claim(self, entry: PoolEntry, attempt_name: str, *, now: float) -> PoolEntry | None:
        """Claim one that is on offer, or whose holder died, or again; return it, or None where another was faster."""
        claimed = replace(entry, claimed_by=attempt_name, since=now)
        return claimed if self.replace(entry, claimed) else None

    def forget(self, cluster_id: str) -> None:
        """Remove the entry of a cluster that ends."""
        with _reached():
            self._storage.delete([_key(cluster_id)])


def _key(cluster_id: str) -> str:
    return f"{clusters_prefix()}{cluster_id}.json"


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise UnreachableError(str(error)) from error
