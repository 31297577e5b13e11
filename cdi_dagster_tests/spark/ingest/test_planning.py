"""Every object in exactly one task, tasks of about equal bytes, the same plan every time."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cdi_dagster.core.member_index import NOTHING, Extent
from cdi_dagster.core.pinned_input import PinnedObject
from cdi_dagster.spark.ingest import planning
from cdi_dagster.spark.ingest.planning import Groups, large_objects, plan_tasks


def pinned_objects(sizes: list[int]) -> list[PinnedObject]:
    return [
        PinnedObject(key=f"p/data.businessAudit_0_{n}-{n}.jsonl.gz", size_bytes=size, etag=f"e{n}", version_id=None)
        for n, size in enumerate(sizes)
    ]


@given(
    sizes=st.lists(st.integers(1, 5_000_000), max_size=60),
    cores=st.integers(1, 8),
    tasks_per_core=st.integers(1, 4),
)
def test_every_object_is_read_once_and_no_task_is_far_above_the_mean(
    sizes: list[int], cores: int, tasks_per_core: int
) -> None:
    objects = pinned_objects(sizes)
    tasks = plan_tasks(objects, cores=cores, tasks_per_core=tasks_per_core)
    read = [[piece.pinned for piece in task.pieces] for task in tasks]
    assert sorted(o.key for some in read for o in some) == sorted(o.key for o in objects)
    assert all(piece.extent is None and piece.is_last for task in tasks for piece in task.pieces)
    assert [task.index for task in tasks] == list(range(len(tasks)))
    assert len(tasks) == min(len(objects), cores * tasks_per_core)
    assert all(read)
    assert all(some == sorted(some, key=objects.index) for some in read)
    assert tasks == plan_tasks(objects, cores=cores, tasks_per_core=tasks_per_core)
    if tasks:
        weights = [task.input_bytes + planning.OBJECT_OVERHEAD_BYTES * len(task.pieces) for task in tasks]
        assert weights == sorted(weights, reverse=True)
        largest_object = max(sizes) + planning.OBJECT_OVERHEAD_BYTES
        assert max(weights) <= sum(weights) / len(weights) + largest_object


def test_two_thousand_small_objects_make_six_tasks_on_two_cores() -> None:
    tasks = plan_tasks(pinned_objects([20_000] * 2_000), cores=2, tasks_per_core=3)
    assert [len(task.pieces) for task in tasks] == [334, 334, 333, 333, 333, 333]


def test_a_large_day_makes_more_tasks_than_a_cluster_that_is_still_starting_asks_for() -> None:
    tasks = plan_tasks(pinned_objects([128 * 1024 * 1024] * 100), cores=2, tasks_per_core=3)
    assert len(tasks) == 51


@st.composite
def days_with_groups(draw: st.DrawFn) -> tuple[list[PinnedObject], Groups]:
    grouped = draw(st.lists(st.lists(st.integers(1, 3_000_000), min_size=1, max_size=30), min_size=1, max_size=8))
    objects = pinned_objects([sum(sizes) for sizes in grouped])
    groups = {
        pinned.key: [Extent(bytes=size, lines=size + 2, envelopes=size) for size in sizes]
        for pinned, sizes in zip(objects, grouped, strict=True)
        if draw(st.booleans())
    }
    return objects, groups


@given(day=days_with_groups(), cores=st.integers(1, 8), tasks_per_core=st.integers(1, 4))
def test_the_parts_of_an_object_are_all_of_it_in_order_over_the_tasks(
    day: tuple[list[PinnedObject], Groups], cores: int, tasks_per_core: int
) -> None:
    objects, groups = day
    tasks = plan_tasks(objects, cores=cores, tasks_per_core=tasks_per_core, groups=groups)
    assert [task.index for task in tasks] == list(range(len(tasks)))
    assert all(task.pieces for task in tasks)
    assert all(sum(piece.extent is not None for piece in task.pieces) <= 1 for task in tasks)
    assert len(tasks) < cores * tasks_per_core + len(objects) + 1
    for task in tasks:
        assert list(task.pieces) == sorted(task.pieces, key=lambda piece: objects.index(piece.pinned))
    pieces = [piece for task in tasks for piece in task.pieces]
    for pinned in objects:
        of_object = [piece for piece in pieces if piece.pinned is pinned]
        assert [piece.is_last for piece in of_object] == [False] * (len(of_object) - 1) + [True]
        assert sum(piece.size_bytes for piece in of_object) == pinned.size_bytes
        if of_object[0].extent is None:
            assert len(of_object) == 1
            continue
        before = NOTHING
        for piece in of_object:
            assert piece.extent
            assert piece.before == before
            before += piece.extent
        assert before == sum(groups[pinned.key], NOTHING)
        ends = [sum(groups[pinned.key][:count], NOTHING) for count in range(len(groups[pinned.key]))]
        assert all(piece.before in ends for piece in of_object)


def test_one_large_object_keeps_all_cores_at_work() -> None:
    size = 8 * 1024 * 1024
    (pinned,) = pinned_objects([size * 128])
    groups = {pinned.key: [Extent(bytes=size, lines=9, envelopes=9)] * 128}
    sizes = [task.input_bytes // size for task in plan_tasks([pinned], cores=2, tasks_per_core=3, groups=groups)]
    assert sorted(sizes) == [21, 21, 21, 21, 22, 22]
    assert len(plan_tasks([pinned], cores=2, tasks_per_core=3)) == 1


def test_only_coalesced_objects_above_a_tasks_share_are_worth_dividing() -> None:
    def large(sizes: list[int], separator: str = "_") -> list[int]:
        objects = [
            replace(each, key=f"d.c_0_{n}{separator}{n}.jsonl.gz") for n, each in enumerate(pinned_objects(sizes))
        ]
        return [each.size_bytes for each in large_objects(objects, cores=2, tasks_per_core=3)]

    megabyte = 1024 * 1024
    assert large([100 * megabyte, *[10 * megabyte] * 3]) == [100 * megabyte]
    assert large([100 * megabyte], separator="-") == []
    assert large([128 * megabyte] * 50) == []  # each core has enough of them
    assert large([7 * megabyte]) == []  # one group: it has no index
    assert large([]) == []


def test_nothing_to_read_is_no_task() -> None:
    assert plan_tasks([], cores=2, tasks_per_core=3) == []
