"""The mark on storage: the form that is there already is read, and written, for good."""

import json
from datetime import date
from pathlib import Path

import pytest

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import mark_key
from cdi_dagster.published.mark import Mark
from cdi_dagster.published.read import read_mark
from cdi_dagster.storage import Storage, open_storage

DAY = find_collection("data:businessAudit").on(date(2023, 3, 26))
STORED = {
    "fingerprint": "f" * 64,
    "correlation_id": "run-1",
    "collection": "data:businessAudit",
    "storage_day": "2023-03-26",
    "export_day": "2023-03-27",
    "published": 3,
    "rejected": 1,
    "record_bytes": 300,
    "published_bytes": 90,
    "parts": [{"key": "x/part-00000-a.jsonl.gz", "size_bytes": 90, "records": 3}],
    "published_at": "2023-03-27T09:40:00Z",
}


@pytest.fixture
def published(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "published").as_uri())


@pytest.mark.parametrize("more", [{}, {"replayed_from": "run-0"}])
def test_a_mark_of_before_is_read_and_written_byte_for_byte(published: Storage, more: dict[str, str]) -> None:
    stored = json.dumps(STORED | more, indent=1).encode()
    published.write(mark_key(DAY), stored)
    mark = read_mark(published, DAY)
    assert mark is not None
    assert (mark.published, mark.text_bytes, mark.replayed_from) == (3, 297, more.get("replayed_from"))
    assert mark.to_bytes() == stored
    assert Mark.from_json(mark.to_json()) == mark


def test_an_unpublished_day_has_no_mark(published: Storage) -> None:
    assert read_mark(published, DAY) is None


@pytest.mark.parametrize(
    "content", [b"{half", b"[]", b"{}", b"null", json.dumps(STORED | {"parts": [1]}).encode(), b"\xff"]
)
def test_a_mark_that_cannot_be_read_says_what_to_do(published: Storage, content: bytes) -> None:
    published.write(mark_key(DAY), content)
    with pytest.raises(CdiError, match="_SUCCESS cannot be read") as caught:
        read_mark(published, DAY)
    assert caught.value.failure_class is FailureClass.INPUT_INVALID
    assert "allow_fewer_offsets" in caught.value.next_step
