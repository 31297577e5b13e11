"""A day as plain Python, read only: what `from cdi_dagster import …` gives to a notebook or a script (docs/reading.md).

Three calls, kept stable; their values are those that the rest of the code uses. Nothing here writes, and nothing in
this package imports it.
"""

from datetime import date

from cdi_dagster.core.collections import CollectionDay, find_collection
from cdi_dagster.core.days import parse_day
from cdi_dagster.core.pinned_input import PinnedInput
from cdi_dagster.core.tables_report import PublishedTable
from cdi_dagster.ingestion.pinning import read_pinned_input
from cdi_dagster.published.read import Publication, read_publication
from cdi_dagster.published.tables import shown_tables
from cdi_dagster.settings import load_settings, use_aws_settings
from cdi_dagster.storage import Storage, open_storage

__all__ = ["pinned_input", "publication", "tables"]


def pinned_input(collection: str, storage_day: date | str, *, published_root: str | None = None) -> PinnedInput | None:
    """Return the objects that the latest run of a day was to read, exactly; None where none was pinned.

    Args:
        collection: `db:name`, for example `data:businessAudit`.
        storage_day: the partition; a text as YYYY-MM-DD.
        published_root: `file:///folder` or `s3://bucket`; that of the settings (`CDI_HOME`, `CDI_PUBLISHED_ROOT`) by
            default.

    Raises:
        CdiError: INPUT_INVALID where it cannot be read, or there is no such collection.
        ValueError: the day is not written as YYYY-MM-DD.
        StorageError: the storage does not respond.
    """
    day, published = _opened(collection, storage_day, published_root)
    return read_pinned_input(published, day)


def publication(collection: str, storage_day: date | str, *, published_root: str | None = None) -> Publication | None:
    """Return what is published of a day: its mark, the run's report and the pinned input; None where nothing is.

    Args and errors are those of `pinned_input`.
    """
    day, published = _opened(collection, storage_day, published_root)
    return read_publication(published, day)


def tables(
    collection: str, storage_day: date | str, *, published_root: str | None = None
) -> tuple[PublishedTable, ...]:
    """Return the tables that show what is published of a day, each as it was last made; none where nothing is.

    Args and errors are those of `pinned_input`.
    """
    day, published = _opened(collection, storage_day, published_root)
    return shown_tables(published, day)


def _opened(collection: str, storage_day: date | str, published_root: str | None) -> tuple[CollectionDay, Storage]:
    day = parse_day(storage_day) if isinstance(storage_day, str) else storage_day
    if published_root is None:
        published_root = load_settings().published_root
    else:
        use_aws_settings()
    return find_collection(collection).on(day), open_storage(published_root)
