"""Reads which gzip members large objects have, from the indexes that the coalescer keeps (`core.member_index`).

What has no index that fits is read whole, so nothing here fails. Runs in the driver; imported by `job` and `trace`.
"""

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from cdi_dagster.core.member_index import Extent, MemberIndex
from cdi_dagster.core.pinned_input import PinnedObject
from cdi_dagster.core.storage_keys import member_index_key
from cdi_dagster.storage import ObjectMissingError, Storage, StorageError

_REQUESTS: Final = 16
"""At once: there are as many large objects as tasks, at most."""
_log = logging.getLogger(__name__)


def read_groups(corporate: Storage, objects: Sequence[PinnedObject]) -> dict[str, Sequence[Extent]]:
    """Return the groups of members of those objects that have an index which fits, by key."""
    if not objects:
        return {}
    with ThreadPoolExecutor(min(_REQUESTS, len(objects)), thread_name_prefix="member-index") as pool:
        found = list(pool.map(partial(_groups_of, corporate), objects))
    return {pinned.key: groups for pinned, groups in zip(objects, found, strict=True) if groups}


def _groups_of(corporate: Storage, pinned: PinnedObject) -> Sequence[Extent]:
    try:
        index = MemberIndex.from_json(json.loads(corporate.read(member_index_key(pinned.key))))
    except ObjectMissingError:
        return ()
    except (StorageError, ValueError) as error:  # S3 refuses a key that is not there to whoever may not list
        _log.info("%s is read by one core; its index cannot be read: %s", pinned.key, error)
        return ()
    return index.groups if index.fits(key=pinned.key, etag=pinned.etag, size_bytes=pinned.size_bytes) else ()
