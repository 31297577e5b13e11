from datetime import date
from time import process_time

import pytest

from cdi_dagster.core.lost_offsets import lost_objects
from cdi_dagster.core.pinned_input import PinnedInput, PinnedObject


def pinned(*names: str) -> PinnedInput:
    return PinnedInput(
        collection_id="data:businessAudit",
        storage_day=date(2023, 3, 26),
        corporate_root="file:///corporate",
        fingerprint=" ".join(names),
        objects=tuple(
            PinnedObject(key=f"day/data.businessAudit_{name}.jsonl.gz", size_bytes=1, etag="e", version_id=None)
            for name in names
        ),
        left_out=(),
        gaps=(),
    )


BEFORE = ("0_0-9", "0_10-19", "1_5-9")


@pytest.mark.parametrize(
    ("now", "lost"),
    [
        (BEFORE, ()),
        (("0_0_19", "1_5_9"), ()),
        (("0_0-4", "0_5-14", "0_15-19", "1_5-9"), ()),
        ((*BEFORE, "0_20-29", "2_0-9"), ()),
        (("0_0_19",), ("1_5-9",)),
        (("0_10-19", "1_5-9"), ("0_0-9",)),
        (("0_0-9", "1_5-9"), ("0_10-19",)),
        (("0_0_18", "1_5-9"), ("0_10-19",)),
        (("0_0-9", "0_11-19", "1_5-9"), ("0_10-19",)),
        (("1_0_19",), ("0_0-9", "0_10-19")),
        ((), BEFORE),
    ],
)
def test_offsets_that_no_object_states_any_more_are_lost_whatever_the_objects_are_now(
    now: tuple[str, ...], lost: tuple[str, ...]
) -> None:
    assert lost_objects(pinned(*BEFORE), pinned(*now)) == list(pinned(*lost).objects)


def test_a_day_with_thousands_of_holes_is_compared_in_a_moment() -> None:
    spaced = pinned(*(f"0_{20 * number}-{20 * number + 9}" for number in range(15_000)))
    started = process_time()
    assert lost_objects(spaced, spaced) == []
    assert process_time() - started < 3  # one span after the other took eight seconds, twice for each pin
