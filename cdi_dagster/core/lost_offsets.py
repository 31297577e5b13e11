"""Which objects of an earlier pinned input hold offsets that no object of the day states any more: lost records.

Pure. Within a day a gap shows only between two objects. The first, the last or the only object of a Kafka partition
can vanish without a gap; then only the earlier input shows it.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence

from cdi_dagster.core.object_names import ObjectName
from cdi_dagster.core.pinned_input import PinnedInput, PinnedObject

LISTING_DETAIL = "listing_fingerprint"
"""In the detail of an OFFSETS_LOST failure: of the listing that lacks the offsets."""


def lost_objects(before: PinnedInput, now: PinnedInput) -> Sequence[PinnedObject]:
    """Return the objects of `before`, in its order, that have offsets which no object of `now` states."""
    spans = _spans(pinned.name for pinned in now.objects)
    return [pinned for pinned in before.objects if not _is_within(pinned.name, spans)]


_Spans = dict[int, list[tuple[int, int]]]


def _spans(object_names: Iterable[ObjectName]) -> _Spans:
    """Return the offsets of each Kafka partition as the fewest spans, in order."""
    spans: _Spans = defaultdict(list)
    for name in sorted(object_names, key=lambda name: name.first_offset):
        of_partition = spans[name.kafka_partition]
        if of_partition and name.first_offset <= of_partition[-1][1] + 1:
            of_partition[-1] = (of_partition[-1][0], max(of_partition[-1][1], name.last_offset))
        else:
            of_partition.append((name.first_offset, name.last_offset))
    return spans


def _is_within(name: ObjectName, spans: _Spans) -> bool:
    of_partition = spans.get(name.kafka_partition, [])
    # Not one after the other: a day whose coalescer left 15,000 holes has as many spans.
    number = bisect_right(of_partition, name.first_offset, key=lambda span: span[0]) - 1
    return number >= 0 and name.last_offset <= of_partition[number][1]
