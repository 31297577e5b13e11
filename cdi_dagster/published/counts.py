"""Whether what is published matches what it was made from: mark, run report, pinned input, stored parts.

Pure: the checks read the four from storage. Each function returns what is wrong, as sentences; nothing
wrong is an empty list.
"""

import re
from collections import Counter
from collections.abc import Iterable

from cdi_dagster.core.failures import CdiError
from cdi_dagster.core.ingest_report import IngestReport, reconcile
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.core.object_names import ObjectName
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.core.storage_keys import SUCCESS_MARK
from cdi_dagster.published.mark import Mark
from cdi_dagster.published.read import Publication

_ID_PART_FOLDER = re.compile("id_part=[0-9a-f]{2}")


def count_mismatches(publication: Publication, stored: Iterable[StoredObject]) -> list[str]:
    """Compare everything that states how much was read, published and rejected.

    Args:
        publication: mark, report and pinned input.
        stored: what is under the published prefix now, the mark included.
    """
    mark, report, pinned = publication.mark, publication.report, publication.pinned
    problems = []
    if report.fingerprint != mark.fingerprint:
        problems.append(f"the run report is of input {report.fingerprint}, the publication of {mark.fingerprint}")
    if pinned.fingerprint != mark.fingerprint:
        problems.append(f"the pinned input is {pinned.fingerprint}, the publication is of {mark.fingerprint}")
    for name, stated, counted in (
        ("published", mark.published, report.published),
        ("rejected", mark.rejected, report.rejected),
        ("published_bytes", mark.published_bytes, report.published_bytes),
        ("records by part", sum(part.records for part in mark.parts), mark.published),
        ("rows by db_type", mark.db_types, report.db_types),
        ("rows of all db_types", sum((mark.db_types or {"": mark.published}).values()), mark.published),
    ):
        if stated != counted:
            problems.append(f"{name}: the mark states {stated}, but {counted} were counted")
    try:
        # The offsets check reports fewer records than offsets; more are never accepted.
        reconcile(pinned, report.objects, allow_sparse_offsets=True)
    except CdiError as error:
        problems.append(error.cause)
    return problems + _part_mismatches(mark, stored)


def _part_mismatches(mark: Mark, stored: Iterable[StoredObject]) -> list[str]:
    expected = {part.key: part.size_bytes for part in mark.parts}
    found = {entry.key: entry.size_bytes for entry in stored if not entry.key.endswith(f"/{SUCCESS_MARK}")}
    return (
        [f"{key} is named by the mark but does not exist" for key in sorted(expected.keys() - found.keys())]
        + [f"{key} exists but the mark does not name it" for key in sorted(found.keys() - expected.keys())]
        + [
            f"{key} has {found[key]} bytes, the mark states {expected[key]}"
            for key in sorted(expected.keys() & found.keys())
            if found[key] != expected[key]
        ]
    )


def overlapping_offsets(pinned: PinnedInput) -> list[str]:
    """Name every pair of neighbouring objects whose offsets overlap: their records would be published twice."""
    named = sorted(((entry.name, entry.key) for entry in pinned.objects), key=lambda pair: _place(pair[0]))
    return [
        f"{key} starts at offset {name.first_offset}, but {before_key} goes to {before.last_offset}"
        for (before, before_key), (name, key) in zip(named, named[1:], strict=False)
        if (before.topic, before.kafka_partition) == (name.topic, name.kafka_partition)
        and name.first_offset <= before.last_offset
    ]


def missing_records(pinned: PinnedInput, report: IngestReport) -> list[str]:
    """Name every gap between objects, and every object with fewer records than its name states offsets."""
    read = {counts.key: counts.read for counts in report.objects}
    gaps = [
        f"Kafka partition {gap.kafka_partition}: offsets {gap.first_offset} to {gap.last_offset} are in no object"
        for gap in pinned.gaps
    ]
    sparse = [
        f"{entry.key} states {entry.name.offset_count} offsets but holds {read.get(entry.key, 0)} records"
        for entry in pinned.objects
        if read.get(entry.key, 0) < entry.name.offset_count
    ]
    return gaps + sparse


def rows_elsewhere(mark: Mark) -> list[str]:
    """Name every `id_part` that has rows and is not one of the 256 of production's ids, `00` to `ff`."""
    rows: Counter[str] = Counter()
    for part in mark.parts:
        folder = part.key.rsplit("/", 2)[-2]
        if not _ID_PART_FOLDER.fullmatch(folder):
            rows[folder] += part.records
    return [f"{count} rows in {folder}: not two hexadecimal digits" for folder, count in sorted(rows.items())]


def _place(name: ObjectName) -> tuple[str, int, int]:
    return (name.topic, name.kafka_partition, name.first_offset)
