"""Objects under a root, `file://` and `s3://` alike, behind one small interface.

`open_storage(root)` opens one; `interface` is the contract of every storage; `files` and `s3` implement it.
Runs in the control plane and on the cluster, so: no dagster here.
"""

from cdi_dagster.storage.encryption import Encryption, encrypt_writes, encryption, use_encryption
from cdi_dagster.storage.failure import storage_failure
from cdi_dagster.storage.interface import (
    NoObjectError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    PreparedObject,
    Storage,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
    TransientStorageError,
    Upload,
)
from cdi_dagster.storage.opening import open_roots, open_storage
from cdi_dagster.storage.roots import Roots

__all__ = [
    "Encryption",
    "NoObjectError",
    "ObjectChangedError",
    "ObjectExistsError",
    "ObjectMissingError",
    "PreparedObject",
    "Roots",
    "Storage",
    "StorageError",
    "StorageFullError",
    "TransientStorageError",
    "StorageUnavailableError",
    "Upload",
    "encrypt_writes",
    "encryption",
    "open_roots",
    "open_storage",
    "storage_failure",
    "use_encryption",
]
