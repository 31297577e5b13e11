"""Turns a storage error into a failure with a class. For assets, jobs and the terminal alike."""

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.full_disk import storage_full
from cdi_dagster.storage.interface import (
    NoObjectError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
    TransientStorageError,
)


def storage_failure(error: StorageError) -> CdiError:
    """Return the failure of a storage error: STORAGE_UNAVAILABLE if a retry may help, else one for a person."""
    if isinstance(error, TransientStorageError):
        return CdiError(FailureClass.STORAGE_UNAVAILABLE, str(error))
    if isinstance(error, StorageFullError):
        return storage_full(str(error))
    next_step = "Fix what the cause names (space, access, network), then run the day again."
    a_person_can_fix_it = isinstance(error, StorageUnavailableError | NoObjectError)
    return CdiError(
        FailureClass.JOB_FAILED,
        f"Storage failed: {error}",
        next_step=next_step if a_person_can_fix_it else None,
    )
