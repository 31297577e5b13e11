"""Whether a day's pin is current costs no more of the listing than the pin is long."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

from cdi_dagster.core.collections import find_collection
from cdi_dagster.core.listing import StoredObject
from cdi_dagster.ingestion.day_progress import day_progress
from cdi_dagster.ingestion.pinning import pin_storage_day
from cdi_dagster.storage.files import FileStorage
from cdi_dagster.storage.roots import Roots

DAY = find_collection("data:businessAudit").on(date(2023, 3, 26))


class CountedListing(FileStorage):
    """Counts the objects that are taken from its listings."""

    taken = 0

    def list(self, prefix: str, *, versions: bool = False) -> Iterator[StoredObject]:
        for stored in super().list(prefix, versions=versions):
            self.taken += 1
            yield stored


def put(corporate: FileStorage, offset: int) -> None:
    corporate.write(f"{DAY.corporate_prefix}data.businessAudit_0_{offset}-{offset}.jsonl.gz", b"x")


def test_a_listing_is_read_no_further_than_one_object_beyond_the_pin(tmp_path: Path) -> None:
    corporate = CountedListing((tmp_path / "corporate").as_uri())
    roots = Roots(corporate=corporate, published=FileStorage((tmp_path / "published").as_uri()))
    put(corporate, 0)
    assert not day_progress(roots, DAY, fingerprint=None).pinned
    assert corporate.taken == 0  # nothing to compare with

    pinned = pin_storage_day(roots, DAY)
    corporate.taken = 0
    assert day_progress(roots, DAY, fingerprint=None).pinned_is_current
    assert day_progress(roots, DAY, fingerprint=pinned.fingerprint).pinned_is_current
    assert corporate.taken == 1  # for the first; the second knew the fingerprint

    for offset in range(1, 50):
        put(corporate, offset)
    corporate.taken = 0
    assert not day_progress(roots, DAY, fingerprint=None).pinned_is_current
    assert corporate.taken == 2
