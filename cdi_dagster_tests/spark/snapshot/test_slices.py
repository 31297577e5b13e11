"""How many files a group of id_parts becomes."""

import pytest

from cdi_dagster.spark.snapshot.slices import LEAST_SLICE_BYTES, SLICE_BYTES, slices_of, task_memory

GB = 1024**3


@pytest.mark.parametrize(
    ("stored_bytes", "cores", "slices"),
    [
        (0, 8, 1),
        (LEAST_SLICE_BYTES + 1, 8, 2),
        (100 * LEAST_SLICE_BYTES, 8, 8),
        (512 * GB, 1440, 2048),
        (SLICE_BYTES - 1, 1, 1),
    ],
)
def test_slices_are_of_one_size_and_keep_every_core_at_work(stored_bytes: int, cores: int, slices: int) -> None:
    assert slices_of(stored_bytes, cores=cores, task_memory_bytes=2 * GB) == slices


def test_slices_are_smaller_where_a_task_has_less_memory_to_sort_them_in() -> None:
    memory = task_memory("2g", cores=2)
    assert slices_of(GB, cores=2, task_memory_bytes=memory) == 11
    assert slices_of(GB, cores=2, task_memory_bytes=1) == GB // LEAST_SLICE_BYTES


@pytest.mark.parametrize(("text", "size"), [("2g", 2 * GB), ("4096M", 4 * GB), ("1024", GB), ("1tb", 1024 * GB)])
def test_memory_is_read_as_spark_writes_it(text: str, size: int) -> None:
    assert task_memory(text, cores=3) == int(size * 0.6) // 3
    with pytest.raises(ValueError, match="no memory of Spark"):
        task_memory("much", cores=1)
