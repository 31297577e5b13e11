import pytest

from cdi_dagster.core.collections import find_collection
from cdi_dagster.spark.records.engine import BlockResult, RecordEngine
from cdi_dagster_tests.spark.records.vectors import (
    ReversedKeys,
    RowVector,
    Vector,
    read_row_vectors,
    read_vectors,
    rows_of,
)

VECTORS = read_vectors()


def process(vector: Vector) -> BlockResult:
    return RecordEngine(find_collection(vector.collection_id), ReversedKeys()).process([vector.envelope])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector.group}-{ascii(vector.name)}")
def test_golden_record_has_exactly_these_bytes_or_is_rejected(vector: Vector) -> None:
    result = process(vector)

    if vector.expected is not None:
        assert result.records == vector.expected + b"\n"
        assert (result.published, result.rejects) == (1, ())
    else:
        assert (result.records, result.published) == (b"", 0)
        assert [reject.index for reject in result.rejects] == [0]
        assert vector.reason in (None, result.rejects[0].reason)


@pytest.mark.parametrize("vector", read_row_vectors(), ids=lambda vector: ascii(vector.name))
def test_golden_row_of_a_keyed_collection(vector: RowVector) -> None:
    engine = RecordEngine(find_collection("calculator:calculationParts"), ReversedKeys())

    result = engine.process([vector.envelope])

    assert rows_of(result) == ([vector.expected] if vector.expected else [])
    assert [reject.reason for reject in result.rejects] == ([vector.reason] if vector.reason else [])
