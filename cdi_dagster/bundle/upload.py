"""Uploads a bundle to where clusters fetch it: once, whole, under its own id."""

import shutil
from collections.abc import Callable
from pathlib import Path

from cdi_dagster.bundle.build import bundle_files
from cdi_dagster.storage.interface import Storage

MARK = "SHA256SUMS"


def upload_bundle(folder: Path, storage: Storage, *, log: Callable[[str], None] = lambda _: None) -> bool:
    """Store the bundle under `<root>/<bundle id>/`, the list of hashes last; return False if it was complete already.

    Raises:
        StorageError: an upload failed; the partial bundle is harmless, and the next try completes it.
    """
    if storage.head(f"{folder.name}/{MARK}") is not None:
        return False
    files = bundle_files(folder)
    for number, path in enumerate(files, start=1):
        key = f"{folder.name}/{path.relative_to(folder).as_posix()}"
        with path.open("rb") as source, storage.upload(key) as upload:
            shutil.copyfileobj(source, upload, length=1024 * 1024)
            upload.complete()
        log(f"{number} of {len(files)} files")
    return True
