"""Reading a publication: its mark, and the report, the pinned input and the parts that the mark names."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.ingest_report import IngestReport
from cdi_dagster.core.launch_decision import PublishedFrom
from cdi_dagster.core.pinned_input import RESTORE_MANIFEST, PinnedInput
from cdi_dagster.core.storage_keys import (
    SUCCESS_MARK,
    daily_prefix,
    mark_key,
    pinned_input_history_key,
    run_report_key,
)
from cdi_dagster.published.mark import Mark
from cdi_dagster.storage import ObjectMissingError, Storage

_Value = TypeVar("_Value")
# Without it the pin would read the same mark, and fail.
_REWRITE_RECORDS = "Run the day again with allow_fewer_offsets: that rewrites records and mark."
_REWRITE_ALL = "Run the day again: that rewrites records, mark and report; rejects are then ingested with it."


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What is published of one day, and what it was made from.

    Attributes:
        day: of which collection and storage day.
        mark: its `_SUCCESS`.
        report: closing report of the run that the mark names.
        pinned: the pinned input whose fingerprint the mark names.
    """

    day: CollectionDay
    mark: Mark
    report: IngestReport
    pinned: PinnedInput


def read_mark(published: Storage, day: CollectionDay) -> Mark | None:
    """Return the mark of the published records, or None where there are none.

    Raises:
        CdiError: INPUT_INVALID where the mark cannot be read.
        StorageError: the storage does not respond.
    """
    return _read(published, mark_key(day), Mark.from_json, next_step=_REWRITE_RECORDS)


def origin_of(mark: Mark) -> PublishedFrom:
    """Return what a decision about the day needs of its mark."""
    return PublishedFrom(fingerprint=mark.fingerprint, published_at=mark.published_at, run_id=mark.correlation_id)


def read_publication(published: Storage, day: CollectionDay) -> Publication | None:
    """Return the publication of a day, or None where there is none.

    Raises:
        CdiError: INPUT_INVALID where the mark, or what it names, cannot be read or is gone.
        StorageError: the storage does not respond.
    """
    mark = read_mark(published, day)
    if mark is None:
        return None
    report_key = run_report_key(day, mark.correlation_id)
    report = _read(published, report_key, IngestReport.from_json, next_step=_REWRITE_ALL)
    pinned = _read_pinned(published, day, mark, next_step=_REWRITE_ALL)
    if report is None or pinned is None:
        missing = report_key if report is None else pinned_input_history_key(day, mark.fingerprint)
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{published.uri(missing)}, which the mark of the published records names, does not exist.",
            next_step=_REWRITE_ALL,
        )
    return Publication(day=day, mark=mark, report=report, pinned=pinned)


def read_published_input(published: Storage, day: CollectionDay) -> PinnedInput | None:
    """Return what the published records were made from; None where there are none, or it was not kept.

    Raises:
        CdiError: INPUT_INVALID where the mark, or the pinned input that it names, cannot be read.
    """
    mark = read_mark(published, day)
    return None if mark is None else _read_pinned(published, day, mark, next_step=RESTORE_MANIFEST)


def require_published_parts(published: Storage, day: CollectionDay) -> Mark:
    """Return the mark where the day is published and every part that the mark names is there.

    Raises:
        CdiError: INPUT_INVALID where it is not published, or a part is not as marked.
        StorageError: the storage does not respond.
    """
    prefix = daily_prefix(day)
    mark = read_mark(published, day)
    if mark is None:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"The daily records of {day.collection.id} for storage day {day.storage_day} are not published: "
            f"there is no {SUCCESS_MARK} in {published.uri(prefix)}.",
            next_step="Publish the records of the day first: materialise it, or run cdi ingest.",
        )
    parts = [(part.key, part.size_bytes) for part in mark.parts]
    require_stored(published, prefix, parts, next_step="Run the day again, then its tables.")
    return mark


def require_stored(published: Storage, prefix: str, parts: Iterable[tuple[str, int]], *, next_step: str) -> None:
    """Return where every part that a mark names, by key and size in bytes, is there.

    Raises:
        CdiError: INPUT_INVALID, naming the first that is not.
        StorageError: the storage does not respond.
    """
    present = {stored.key: stored.size_bytes for stored in published.list(prefix)}
    for key, size_bytes in parts:
        if present.get(key) != size_bytes:
            found = f"it has {present[key]}" if key in present else "it is gone"
            raise CdiError(
                FailureClass.INPUT_INVALID,
                f"The mark names {published.uri(key)} with {size_bytes} bytes, but {found}.",
                next_step=next_step,
            )


def _read_pinned(published: Storage, day: CollectionDay, mark: Mark, *, next_step: str) -> PinnedInput | None:
    return _read(published, pinned_input_history_key(day, mark.fingerprint), PinnedInput.from_json, next_step=next_step)


def _read(
    published: Storage, key: str, parse: Callable[[Mapping[str, Any]], _Value], *, next_step: str
) -> _Value | None:
    try:
        content = published.read(key)
    except ObjectMissingError:
        return None
    try:
        return parse(json.loads(content))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"{published.uri(key)} cannot be read: {type(error).__name__} at {error}.",
            next_step=next_step,
            detail={"key": key},
        ) from error
