"""Pinning a storage day: list it, decide what a run reads, write the manifest; later, check whether it still holds.

The decision itself is `cdi_dagster.core.pinned_input.pin`; here is what uses storage. Plain functions without
Dagster, for assets and the terminal. The caller checks whether the gate is open.
"""

import json
from datetime import datetime

import orjson

from cdi_dagster.core.bulk import collector_paused
from cdi_dagster.core.collections import CollectionDay, find_collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.listing import StoredObject, listing_fingerprint
from cdi_dagster.core.lost_offsets import LISTING_DETAIL, lost_objects
from cdi_dagster.core.object_names import InvalidObjectNameError, parse_object_name
from cdi_dagster.core.pinned_input import RESTORE_MANIFEST, PinnedInput, PinnedObject, pin
from cdi_dagster.core.storage_keys import pinned_input_history_key, pinned_input_key
from cdi_dagster.published.read import read_published_input
from cdi_dagster.storage.interface import NoObjectError, ObjectMissingError, Storage
from cdi_dagster.storage.roots import Roots


def pin_storage_day(
    roots: Roots,
    day: CollectionDay,
    *,
    allow_empty: bool = False,
    allow_fewer_offsets: bool = False,
) -> PinnedInput:
    """List a storage day, decide what a run reads, and write the manifest: the current one and its kept copy.

    Args:
        roots: corporate storage is only listed; the published root gets the manifest.
        day: what to pin.
        allow_empty: pin a day without objects, instead of failing.
        allow_fewer_offsets: pin a day that lacks offsets which it had when it was pinned or published before.

    Returns:
        The pinned input. The caller shows its `left_out` and `gaps`.

    Raises:
        CdiError: INPUT_INVALID where there are no objects, something in the day is none, or `pin` cannot resolve what
            there is; OFFSETS_LOST, naming the first object that is gone, where the day lacks offsets that it had;
            INPUT_CHANGED where it lacked them only while it was being listed.
        StorageError: the day cannot be listed, or the manifest cannot be written.
    """
    prefix = day.corporate_prefix
    with collector_paused():
        pinned = pin(day, roots.corporate.root, _list_day(roots.corporate, day, versions=True))
        manifest = manifest_of(pinned)
    if not pinned.objects and not allow_empty:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"There are no objects under {roots.corporate.uri(prefix)}: nothing was written for {day}.",
            next_step="Find out why K2HB wrote nothing; if the day really had no events, run it with allow_empty.",
            detail={"prefix": prefix},
        )
    if not allow_fewer_offsets:
        _require_all_offsets(roots, day, pinned)
    # The kept copy first, so that every manifest that was ever the current one is kept.
    roots.published.write(pinned_input_history_key(day, pinned.fingerprint), manifest)
    roots.published.write(pinned_input_key(day), manifest)
    return pinned


def manifest_of(pinned: PinnedInput) -> bytes:
    """Return the bytes of the manifest."""
    return orjson.dumps(pinned.to_manifest())


def _require_all_offsets(roots: Roots, day: CollectionDay, pinned: PinnedInput) -> None:
    """Fail where the day has fewer offsets than its last pin, or than what is published was made from."""
    for what, before in (
        ("published", read_published_input(roots.published, day)),
        ("pinned", read_pinned_input(roots.published, day)),
    ):
        lost = lost_objects(before, pinned) if before and before.fingerprint != pinned.fingerprint else ()
        if before and lost:
            # A listing beside a coalescer at work may show neither its object nor what it has merged.
            require_unchanged(roots.corporate, pinned)
            name = lost[0].name
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise CdiError(
                FailureClass.OFFSETS_LOST,
                f"The day was {what} with {before.offset_count} offsets and has {pinned.offset_count} now: offsets "
                f"{name.first_offset} to {name.last_offset} of Kafka partition {name.kafka_partition} are in no object "
                f"any more ({lost[0].key}{more}).",
                next_step="Bring the object back, from a version of the bucket or a backup; with our own coalescer, "
                "then run it for the day again. If its records are to go from what is published, run the day with "
                "allow_fewer_offsets.",
                detail={"key": lost[0].key, "objects": len(lost), LISTING_DETAIL: pinned.fingerprint},
            )


def read_pinned_input(published: Storage, day: CollectionDay) -> PinnedInput | None:
    """Return the current pinned input of a day, or None where it was never pinned.

    Raises:
        CdiError: INPUT_INVALID where the manifest cannot be read as one.
    """
    key = pinned_input_key(day)
    try:
        content = published.read(key)
    except ObjectMissingError:
        return None
    try:
        value = json.loads(content)
    except ValueError as error:
        raise _no_manifest(f"{published.uri(key)} is not JSON.", key) from error
    if not isinstance(value, dict):
        raise _no_manifest(f"{published.uri(key)} is no JSON object.", key)
    return PinnedInput.from_json(value)


def _no_manifest(cause: str, key: str) -> CdiError:
    return CdiError(FailureClass.INPUT_INVALID, cause, next_step=RESTORE_MANIFEST, detail={"key": key})


def require_unchanged(corporate: Storage, pinned: PinnedInput) -> None:
    """Return where the day's listing is still the one that was pinned: nothing gone, changed or added.

    Raises:
        CdiError: INPUT_CHANGED, naming the first object that differs, how, and since when; INPUT_INVALID where
            something in the day is no object.
        StorageError: the day cannot be listed.
    """
    collection = find_collection(pinned.collection_id)
    present = {stored.key: stored for stored in _list_day(corporate, collection.on(pinned.storage_day))}
    if listing_fingerprint(present.values()) == pinned.fingerprint:
        return
    key, difference = _first_difference(pinned, present)
    raise CdiError(
        FailureClass.INPUT_CHANGED,
        f"{key} {difference}.",
        detail={"key": key, "collection": pinned.collection_id, "storage_day": pinned.storage_day.isoformat()},
    )


def _list_day(corporate: Storage, day: CollectionDay, *, versions: bool = False) -> list[StoredObject]:
    try:
        return list(corporate.list(day.corporate_prefix, versions=versions))
    except NoObjectError as error:
        raise CdiError(FailureClass.INPUT_INVALID, str(error)) from error


def _first_difference(pinned: PinnedInput, present: dict[str, StoredObject]) -> tuple[str, str]:
    for expected in pinned.objects:
        stored = present.get(expected.key)
        if stored is None:
            return expected.key, f"was pinned and is gone{_where_it_went(expected, present)}"
        if (stored.size_bytes, stored.etag) != (expected.size_bytes, expected.etag):
            return expected.key, (
                f"was pinned with {expected.size_bytes} bytes and ETag {expected.etag}, but was written again at "
                f"{_utc(stored.modified_at)}: now {stored.size_bytes} bytes, ETag {stored.etag}"
            )
    known = {expected.key for expected in pinned.objects} | {left.key for left in pinned.left_out}
    for key in sorted(present.keys() - known):
        return key, f"was written at {_utc(present[key].modified_at)} and is not in the pinned input"
    for left in pinned.left_out:
        if left.key not in present:
            return left.key, f"was there when the day was pinned (left out: {left.why}) and is gone"
    rewritten = max((left.key for left in pinned.left_out), key=lambda key: present[key].modified_at)
    return (
        rewritten,
        f"was left out when the day was pinned and was written again at {_utc(present[rewritten].modified_at)}",
    )


def _where_it_went(gone: PinnedObject, present: dict[str, StoredObject]) -> str:
    for key, stored in present.items():
        try:
            merged = parse_object_name(key).covers(gone.name)
        except InvalidObjectNameError:
            continue
        if merged:
            return f"; its offsets are in {key.rsplit('/', 1)[-1]} now, written at {_utc(stored.modified_at)}"
    return "; no other object states its offsets"


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
