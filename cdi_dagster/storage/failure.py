"""What trouble with storage is to a person: a failure with a class. For assets, jobs and the terminal alike."""

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.storage.interface import StorageError, StorageUnavailableError, TransientStorageError


def storage_failure(error: StorageError) -> CdiError:
    """Return the failure that a storage's error amounts to: what passes by itself, or what somebody has to mend."""
    if isinstance(error, TransientStorageError):
        return CdiError(FailureClass.STORAGE_UNAVAILABLE, str(error))
    mend = "Mend what the cause names (space, access, network), then run the day again."
    return CdiError(
        FailureClass.JOB_FAILED,
        f"Storage failed: {error}",
        next_step=mend if isinstance(error, StorageUnavailableError) else None,
    )
