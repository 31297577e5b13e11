"""A corporate bucket that keeps versions costs the gate no more requests than one that does not."""

from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from cdi_dagster.coalescer_status.quiet_listing import QuietListingCoalescerStatus
from cdi_dagster.core.gate import CoalescerState
from cdi_dagster.ingestion.pinning import pin_storage_day, require_unchanged
from cdi_dagster.storage import Roots, open_storage
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.s3_server import REGION, new_s3_storage, s3_endpoint
from cdi_dagster_tests.storage.faulty_s3 import Proxy

DAY = AUDIT.on(date(2023, 3, 26))
RAW_OBJECTS = 2_100
"""Coalesced away: each leaves two rows in a listing by versions, of which S3 returns a thousand a page."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(s3_endpoint()) as proxy:
        yield proxy


def requests(proxy: Proxy) -> Counter[str]:
    """Return how often each query was sent since the last time."""
    kinds = Counter(
        next((kind for kind in ("versions", "versioning", "list-type") if kind in query), "other")
        for query in (parse_qs(urlsplit(path).query, keep_blank_values=True) for _, path, _ in proxy.requests)
    )
    proxy.requests.clear()
    return kinds


def test_only_the_pin_lists_versions(tmp_path: Path, proxy: Proxy) -> None:
    corporate = new_s3_storage(versioned=True)
    bucket = corporate.root.removeprefix("s3://")
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]  # the server's own: thousands of PUTs would take a minute
    for n in range(RAW_OBJECTS):
        key = f"{DAY.corporate_prefix}{AUDIT.topic}_0_{n}-{n}.jsonl.gz"
        backend.put_object(bucket, key, b"x")
        backend.delete_object(bucket, key)
    written = corporate.write(f"{DAY.corporate_prefix}{AUDIT.topic}_0_0_{RAW_OBJECTS - 1}.jsonl.gz", b"all")
    roots = Roots(
        corporate=open_storage(corporate.root, endpoint_url=proxy.url, region_name=REGION),
        published=open_storage((tmp_path / "published").as_uri()),
    )

    gate = QuietListingCoalescerStatus(roots, quiet_seconds=3600)
    assert gate.status(DAY).state is CoalescerState.RUNNING
    assert requests(proxy) == {"list-type": 1}

    pinned = pin_storage_day(roots, DAY)
    assert [(entry.key, entry.version_id) for entry in pinned.objects] == [(written.key, written.version_id)]
    assert requests(proxy) == {"versioning": 1, "versions": 5}  # 4,201 rows

    require_unchanged(roots.corporate, pinned)
    assert requests(proxy) == {"list-type": 1}
