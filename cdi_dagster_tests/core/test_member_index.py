"""An index is read back as it was written, is that of one object only, and nothing else passes for one."""

import json
from typing import Any

import pytest

from cdi_dagster.core import member_index
from cdi_dagster.core.collections import CORPORATE_STORAGE
from cdi_dagster.core.member_index import Extent, MemberIndex, add_extent
from cdi_dagster.core.object_names import InvalidObjectNameError, parse_object_name
from cdi_dagster.core.storage_keys import indexed_object_key, member_index_key

KEY = f"{CORPORATE_STORAGE}ucfs_audit/2023/03/26/data/businessAudit/data.businessAudit_0_0_14.jsonl.gz"
INDEX = MemberIndex(
    key=KEY, etag="e", groups=(Extent(bytes=10, lines=3, envelopes=2), Extent(bytes=5, lines=1, envelopes=1))
)


def test_an_index_is_read_back_as_it_was_written() -> None:
    assert MemberIndex.from_json(json.loads(json.dumps(INDEX.to_json()))) == INDEX


@pytest.mark.parametrize(
    ("changed", "fits"), [({}, True), ({"key": "k"}, False), ({"etag": "f"}, False), ({"size_bytes": 16}, False)]
)
def test_it_fits_one_object_only(changed: dict[str, Any], fits: bool) -> None:
    assert INDEX.fits(**({"key": KEY, "etag": "e", "size_bytes": 15} | changed)) is fits


@pytest.mark.parametrize(
    "changed",
    [
        {"format_version": 2},
        {"groups": [{"bytes": 0, "lines": 1, "envelopes": 1}]},
        {"groups": [{"bytes": 1, "lines": 1, "envelopes": 2}]},
        {"groups": [{"bytes": 1, "lines": 1}]},
        {"groups": [{"bytes": "1", "lines": 1, "envelopes": 1}]},
        {"groups": 7},
    ],
)
def test_what_is_no_index_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no member index"):
        MemberIndex.from_json(INDEX.to_json() | changed)
    with pytest.raises(ValueError, match="no member index"):
        MemberIndex.from_json([])  # type: ignore[arg-type]


def test_a_group_ends_with_what_reaches_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_index, "GROUP_BYTES", 10)
    groups: list[Extent] = []
    for size in (4, 6, 9, 30, 1):
        add_extent(groups, Extent(bytes=size, lines=2, envelopes=1))
    assert groups == [
        Extent(bytes=10, lines=4, envelopes=2),
        Extent(bytes=39, lines=4, envelopes=2),
        Extent(bytes=1, lines=2, envelopes=1),
    ]


def test_its_key_is_no_objects_key() -> None:
    key = member_index_key(KEY)
    assert key == "_coalescer/ucfs_audit/2023/03/26/data/businessAudit/data.businessAudit_0_0_14.jsonl.gz.members.json"
    assert not key.startswith(CORPORATE_STORAGE)
    assert indexed_object_key(key) == KEY
    with pytest.raises(InvalidObjectNameError):
        parse_object_name(key)
