"""Small pinned objects, read ahead from an S3 that cuts, stalls and changes: exact counts, or INPUT_CHANGED."""

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.ingestion.pinning import read_pinned_input
from cdi_dagster.storage import Storage, open_storage
from cdi_dagster_tests.gate.quick_ingestion import ingest_pinned, published_records
from cdi_dagster_tests.s3_server import REGION, new_s3_storage, s3_endpoint
from cdi_dagster_tests.spark.ingest_support import SampleDay
from cdi_dagster_tests.storage.faulty_s3 import Cut, Proxy
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

OBJECTS, RECORDS = 30, 90


@pytest.fixture
def small_day(dks_url: str) -> SampleDay:
    """A day of small objects in S3."""
    day = SampleDay(corporate=new_s3_storage(), published=new_s3_storage(), dks_url=dks_url)
    day.write(records=RECORDS, objects=OBJECTS)
    day.pin()
    return day


def pinned_of(day: SampleDay) -> PinnedInput:
    found = read_pinned_input(day.published, day.collection.on(day.storage_day))
    assert found is not None
    return found


def ingest_through(cut: Cut, day: SampleDay) -> None:
    with Proxy(s3_endpoint(), cut) as proxy:
        far = open_storage(day.corporate.root, endpoint_url=proxy.url, region_name=REGION)
        ingest_pinned(far, day.published, pinned_of(day), "run-1")


def test_cut_and_stalled_reads_lose_and_double_nothing(small_day: SampleDay) -> None:
    seen: Counter[str] = Counter()

    def cut(method: str, path: str, count: int) -> int | None:
        seen[path] += 1
        number = len(seen)
        if seen[path] > 1:
            return None
        if number == 2:
            time.sleep(1)
        return {0: 0, 1: 40}.get(number % 4)

    ingest_through(cut, small_day)  # it reconciles every object's count with its offsets
    records = published_records(small_day.published, small_day.collection, small_day.storage_day)
    assert records is not None
    assert (records.total(), max(records.values())) == (RECORDS, 1)
    assert sum(count > 1 for count in seen.values()) >= OBJECTS // 4


def replace(storage: Storage, key: str) -> None:
    storage.write(key, storage.read(key) + b"\0")


def delete(storage: Storage, key: str) -> None:
    storage.delete([key])


@pytest.mark.parametrize(("change", "what"), [(replace, "another one"), (delete, "gone")])
def test_what_changes_while_others_are_read_ahead_is_named_and_nothing_is_published(
    small_day: SampleDay, change: Callable[[Storage, str], None], what: str
) -> None:
    first, key = (pinned_of(small_day).objects[number].key for number in (0, 20))
    changed = threading.Event()
    cut_before: set[str] = set()

    def cut(method: str, path: str, count: int) -> int | None:
        if not path.endswith((first, key)) or path in cut_before:
            return None
        cut_before.add(path)
        if path.endswith(first):
            change(small_day.corporate, key)
            changed.set()
        changed.wait(PATIENCE_SECONDS)  # whatever was read before is cut, and read again
        return 0

    with pytest.raises(CdiError, match=f"it is {what}") as raised:
        ingest_through(cut, small_day)
    assert raised.value.failure_class is FailureClass.INPUT_CHANGED
    assert raised.value.detail["key"] == key
    assert small_day.published_keys() == []
