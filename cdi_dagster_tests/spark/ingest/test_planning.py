"""Every object in exactly one task, tasks of about equal bytes, the same plan every time."""

from hypothesis import given
from hypothesis import strategies as st

from cdi_dagster.core.pinned_input import PinnedObject
from cdi_dagster.spark.ingest import planning
from cdi_dagster.spark.ingest.planning import plan_tasks


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
    assert sorted(o.key for task in tasks for o in task.objects) == sorted(o.key for o in objects)
    assert [task.index for task in tasks] == list(range(len(tasks)))
    assert len(tasks) == min(len(objects), cores * tasks_per_core)
    assert all(task.objects for task in tasks)
    assert all(list(task.objects) == sorted(task.objects, key=objects.index) for task in tasks)
    assert tasks == plan_tasks(objects, cores=cores, tasks_per_core=tasks_per_core)
    if tasks:
        weights = [task.input_bytes + planning.OBJECT_OVERHEAD_BYTES * len(task.objects) for task in tasks]
        assert weights == sorted(weights, reverse=True)
        largest_object = max(sizes) + planning.OBJECT_OVERHEAD_BYTES
        assert max(weights) <= sum(weights) / len(weights) + largest_object


def test_two_thousand_small_objects_make_six_tasks_on_two_cores() -> None:
    tasks = plan_tasks(pinned_objects([20_000] * 2_000), cores=2, tasks_per_core=3)
    assert [len(task.objects) for task in tasks] == [334, 334, 333, 333, 333, 333]


def test_a_large_day_makes_more_tasks_than_a_cluster_that_is_still_starting_asks_for() -> None:
    tasks = plan_tasks(pinned_objects([128 * 1024 * 1024] * 100), cores=2, tasks_per_core=3)
    assert len(tasks) == 51


def test_nothing_to_read_is_no_task() -> None:
    assert plan_tasks([], cores=2, tasks_per_core=3) == []
