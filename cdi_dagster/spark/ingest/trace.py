"""Where one event of a day went: which object and line it was in, and whether it became a record or a reject.

From the pinned input, the run's report and rejects, and the object itself; no index of events is kept, and nothing is
decrypted. The part of a record follows from the plan of tasks, which is the same whenever it is made (`planning`).
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.ingest_report import IngestReport
from cdi_dagster.core.member_index import Extent
from cdi_dagster.core.pinned_input import PinnedInput, PinnedObject
from cdi_dagster.published.mark import Mark, PublishedPart
from cdi_dagster.spark.ingest.member_groups import read_groups
from cdi_dagster.spark.ingest.pinned_streams import opened
from cdi_dagster.spark.ingest.planning import Piece, ReadTask, large_objects, plan_tasks
from cdi_dagster.spark.ingest.reading import EnvelopeReader, OverlongEnvelope
from cdi_dagster.spark.ingest.rejects import StoredReject, stored_rejects
from cdi_dagster.storage import Roots, Storage

_PART_NUMBER: Final = re.compile(r"/part-(?P<number>[0-9]+)-[^/]*$")
_MOST_PLANS: Final = 256


class EventFate(StrEnum):
    """What became of an event."""

    RECORD = "record"
    REJECT = "reject"
    NOT_PUBLISHED = "not published"
    """It would be a record: the run published nothing."""
    NOT_READ = "not read"
    """Its object is pinned; no run has read it."""
    NOT_CERTAIN = "not certain"
    """Its object holds fewer envelopes than its name states offsets."""
    NOT_THERE = "not there"
    """No pinned object of the day states its offset."""


@dataclass(frozen=True, kw_only=True)
class EventTrace:
    """Where one event went: places and reasons, never content.

    Attributes:
        kafka_partition: of the event.
        offset: of the event.
        fate: what became of it.
        text: the same in a sentence.
        object_key: the object it was in, below the corporate root.
        lines: the line of that object, from 1, as first and last possible one: the same where it is certain.
        reason: of a reject.
        detail: of a reject.
        part_key: the published part that holds the record, below the published root.
        part_line: the line of that part, from 1.
    """

    kafka_partition: int
    offset: int
    fate: EventFate
    text: str
    object_key: str | None = None
    lines: tuple[int, int] | None = None
    reason: str | None = None
    detail: str | None = None
    part_key: str | None = None
    part_line: int | None = None


@dataclass(frozen=True, kw_only=True)
class TracedRun:
    """What a run read and made of it.

    Attributes:
        pinned: what was to be read.
        report: the closing report; None where no run has read it.
        mark: of what is published; None where the run published nothing.
    """

    pinned: PinnedInput
    report: IngestReport | None
    mark: Mark | None


def trace_event(roots: Roots, day: CollectionDay, run: TracedRun, kafka_partition: int, offset: int) -> EventTrace:
    """Return where an event went.

    Raises:
        CdiError: INPUT_CHANGED where its object is no longer as it was pinned.
        StorageError: something cannot be read.
    """
    found = next((each for each in run.pinned.objects if _states(each, kafka_partition, offset)), None)
    here: dict[str, Any] = {"kafka_partition": kafka_partition, "offset": offset}
    if found is None:
        return EventTrace(
            **here, fate=EventFate.NOT_THERE, text=_why_not_there(day, run.pinned, kafka_partition, offset)
        )
    counts = next((each for each in run.report.objects if each.key == found.key), None) if run.report else None
    lines, index = _line_of(roots, found, offset - found.name.first_offset)
    here |= {"object_key": found.key, "lines": lines}
    if counts is None or run.report is None:
        return EventTrace(**here, fate=EventFate.NOT_READ, text="no run has read this object yet")
    if index is None:
        text = (
            f"the object holds {counts.read} envelopes for {found.name.offset_count} offsets "
            f"({counts.published} records, {counts.rejected_total} rejects): which offsets have none is not known"
        )
        return EventTrace(**here, fate=EventFate.NOT_CERTAIN, text=text)
    rejects = _rejects_of(roots, run.report, found.key) if counts.rejected_total else []
    reject = next((each for each in rejects if each.line_number == lines[0]), None)
    if reject:
        text = "it was rejected, and is kept as it was stored"
        return EventTrace(**here, fate=EventFate.REJECT, text=text, reason=reject.reason, detail=reject.detail)
    if run.mark is None:
        text = "it would be a record, but the run published nothing"
        return EventTrace(**here, fate=EventFate.NOT_PUBLISHED, text=text)
    before = sum(each.line_number < lines[0] for each in rejects)
    part = None if day.collection.is_keyed else _part_of(roots, run, run.report, run.mark, found.key, index - before)
    if part is None:
        if day.collection.is_keyed:
            why = "rows lie by id_part, sorted by id"
        elif run.mark.replayed_from:
            why = "rejects were replayed into the publication since"
        else:
            why = "the parts are not as planned"
        return EventTrace(
            **here, fate=EventFate.RECORD, text=f"it is a published record; in which part is not known: {why}"
        )
    return EventTrace(
        **here, fate=EventFate.RECORD, text="it is a published record", part_key=part[0], part_line=part[1]
    )


def _states(pinned: PinnedObject, kafka_partition: int, offset: int) -> bool:
    name = pinned.name
    return name.kafka_partition == kafka_partition and name.first_offset <= offset <= name.last_offset


def _why_not_there(day: CollectionDay, pinned: PinnedInput, kafka_partition: int, offset: int) -> str:
    names = [each.name for each in pinned.objects if each.name.kafka_partition == kafka_partition]
    if not names:
        return f"no object of {day} is of Kafka partition {kafka_partition}"
    first, last = min(name.first_offset for name in names), max(name.last_offset for name in names)
    if first <= offset <= last:
        return f"the offset is in no object of {day}: it lies in a gap between two objects"
    where = "an earlier" if offset < first else "a later"
    return f"{day} has the offsets {first} to {last} of Kafka partition {kafka_partition}: look at {where} storage day"


def _line_of(roots: Roots, pinned: PinnedObject, index: int) -> tuple[tuple[int, int], int | None]:
    """Return the lines that an offset can be in, and the envelope's index where it is certain."""
    line_numbers: list[int] = []
    with closing(opened(roots.corporate, [Piece(pinned=pinned)])) as streams:
        for _, stream in streams:
            for block in EnvelopeReader(stream, pinned.key).blocks():
                if isinstance(block, OverlongEnvelope):
                    line_numbers.append(block.line_number)
                else:
                    line_numbers.extend(block.line_numbers)
    missing = pinned.name.offset_count - len(line_numbers)
    if not line_numbers:
        raise CdiError(FailureClass.INPUT_INVALID, f"{pinned.key} holds no line.")
    if missing <= 0:
        line = line_numbers[index]
        return (line, line), index
    last = len(line_numbers) - 1
    return (line_numbers[max(0, index - missing)], line_numbers[min(index, last)]), None


def _rejects_of(roots: Roots, report: IngestReport, key: str) -> list[StoredReject]:
    return [each for each in stored_rejects(roots.published, report.rejects_prefix) if each.key == key]


class _Records:
    """How many records the pieces of a run's objects gave."""

    def __init__(self, roots: Roots, report: IngestReport) -> None:
        self._roots = roots
        self._report = report
        self._published = {counts.key: counts.published for counts in report.objects}

    @cached_property
    def _rejected_lines(self) -> dict[str, list[int]]:
        lines: dict[str, list[int]] = defaultdict(list)
        for reject in stored_rejects(self._roots.published, self._report.rejects_prefix):
            lines[reject.key].append(reject.line_number)
        return {key: sorted(numbers) for key, numbers in lines.items()}

    def of(self, piece: Piece) -> int:
        if piece.extent is None:
            return self._published[piece.pinned.key]
        return self._up_to(piece, piece.before + piece.extent) - self.before(piece)

    def before(self, piece: Piece) -> int:
        """Return how many records the object gave before the piece."""
        return self._up_to(piece, piece.before)

    def _up_to(self, piece: Piece, end: Extent) -> int:
        if not end.lines:
            return 0
        return end.envelopes - bisect_right(self._rejected_lines.get(piece.pinned.key, ()), end.lines)


def _part_of(
    roots: Roots, run: TracedRun, report: IngestReport, mark: Mark, key: str, rank: int
) -> tuple[str, int] | None:
    """Return the part and line of the record that has so many of its object before it; None where it is not certain."""
    records = _Records(roots, report)
    planned = None if mark.replayed_from else _plan_of(run.pinned.objects, mark.parts, records, roots.corporate)
    if planned is None:
        return None
    tasks, parts_of_task = planned
    for task in tasks:
        position = 0
        for piece in task.pieces:
            in_piece = rank - records.before(piece)
            if piece.pinned.key == key and 0 <= in_piece < records.of(piece):
                return _line_in(parts_of_task[task.index], position + in_piece)
            position += records.of(piece)
    return None


def _line_in(parts: Sequence[PublishedPart], position: int) -> tuple[str, int] | None:
    for part in parts:
        if position < part.records:
            return part.key, position + 1
        position -= part.records
    return None


def _plan_of(
    objects: Sequence[PinnedObject], parts: Sequence[PublishedPart], records: _Records, corporate: Storage
) -> tuple[list[ReadTask], dict[int, list[PublishedPart]]] | None:
    """Return the tasks that wrote the parts, and the parts of each: the plan whose counts are those of the parts."""
    numbered = sorted((int(found["number"]), part) for part in parts if (found := _PART_NUMBER.search(part.key)))
    if len(numbered) != len(parts) or not parts:
        return None
    most = numbered[-1][0] + 1
    groups: dict[str, Sequence[Extent]] = {}
    for count in [*range(most, most + _MOST_PLANS + 1), *range(most - 1, 0, -1)][: 2 * _MOST_PLANS]:
        large = large_objects(objects, cores=count, tasks_per_core=1)
        unknown = [each for each in large if each.key not in groups]
        groups |= {**{each.key: () for each in unknown}, **read_groups(corporate, unknown)}
        known = {each.key: groups[each.key] for each in large if groups[each.key]}
        for divided in [known, {}] if known else [{}]:
            tasks = plan_tasks(objects, cores=count, tasks_per_core=1, groups=divided)
            by_task: dict[int, list[PublishedPart]] = defaultdict(list)
            for number, part in numbered:
                by_task[number % len(tasks)].append(part)
            if all(
                sum(part.records for part in by_task[task.index]) == sum(map(records.of, task.pieces)) for task in tasks
            ):
                return tasks, by_task
    return None
