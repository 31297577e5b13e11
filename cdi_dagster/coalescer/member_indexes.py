"""Keeps an index of the gzip members of each large coalesced object (`core.member_index`). Imported by `run` only.

It is written once its object is stored and verified, and names that object's ETag: after a kill there is none, or a
true one. One that is left of an object which was moved away fits nothing, and is deleted by the next run.
"""

import json
import logging
from collections.abc import Iterable

from cdi_dagster.coalescer.merge import Merged
from cdi_dagster.coalescer.shard import Shard
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.member_index import MemberIndex
from cdi_dagster.core.storage_keys import indexed_object_key, member_index_key, member_indexes_prefix
from cdi_dagster.storage.interface import Storage, StorageError

_log = logging.getLogger(__name__)


def write_index(storage: Storage, stored: StoredObject, merged: Merged, *, upload_group: str) -> tuple[str, ...]:
    """Write the index of an object that is large enough for one; return a warning where that failed."""
    if len(merged.groups) == 1:
        return ()
    index = MemberIndex(key=stored.key, etag=stored.etag, groups=merged.groups)
    try:
        with storage.upload(member_index_key(stored.key), group=upload_group) as upload:
            upload.write(json.dumps(index.to_json()).encode())
            upload.complete()
    except StorageError as error:
        return (f"{stored.key} has no index of its gzip members, so one core will read it: {error}",)
    return ()


def delete_orphans(storage: Storage, day: CollectionDay, shard: Shard, present: Iterable[str]) -> None:
    """Delete the indexes of objects of the shard that are not there any more; where it fails they only take space."""
    try:
        indexed = {indexed_object_key(stored.key): stored.key for stored in storage.list(member_indexes_prefix(day))}
        if indexed:
            orphans = indexed.keys() - set(present)
            storage.delete([indexed[key] for key in sorted(orphans) if shard.holds(key)])
    except StorageError as error:
        _log.info("Indexes of gzip members without their object may be left: %s", error)
