"""Checks that a corporate root is where K2HB writes: a wrong root looks like a day without objects."""

from cdi_dagster.core.collections import CORPORATE_STORAGE
from cdi_dagster.storage.interface import Storage


def why_not_corporate_storage(root: Storage) -> str | None:
    """Return why this is not the corporate root: nothing lies where K2HB writes. None if something does.

    Raises:
        StorageError: it cannot be listed.
    """
    if next(iter(root.list(CORPORATE_STORAGE)), None) is not None:
        return None
    return f"There is nothing under {root.uri(CORPORATE_STORAGE)}: that is not where K2HB writes."
