"""Opens the storage of a root URI: the only module that knows both kinds.

Imported from the package, by everybody.
"""

from typing import Any
from urllib.parse import urlsplit

from cdi_dagster.storage.interface import Storage
from cdi_dagster.storage.roots import Roots


def open_storage(root: str, **options: Any) -> Storage:
    """Return the storage under a root URI.

    Args:
        root: `file:///absolute/folder` or `s3://bucket[/prefix]`.
        options: adapter options: `endpoint_url` and `region_name` for S3 (default: boto3's own configuration, this
            installation's region).

    Raises:
        ValueError: the root is neither; the message says how to write one.
    """
    scheme = urlsplit(root).scheme
    if scheme == "file":
        from cdi_dagster.storage.files import FileStorage

        return FileStorage(root)
    if scheme == "s3":
        from cdi_dagster.storage.s3 import S3Storage

        return S3Storage(root, **options)
    raise ValueError(f"{root!r} is not a root: write it as file:///absolute/folder or s3://bucket")


def open_roots(corporate_root: str, published_root: str) -> Roots:
    """Return the storages under the two roots of an installation. Raises as `open_storage`."""
    return Roots(corporate=open_storage(corporate_root), published=open_storage(published_root))
