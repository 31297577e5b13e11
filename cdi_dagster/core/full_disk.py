"""A disk or quota that is full: recognised by the error or by the text of a program that reports it."""

import errno
import re

from cdi_dagster.core.failures import CdiError, FailureClass

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TEXT = re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that of a full disk."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def reports_full(text: str) -> bool:
    """Whether a text of Java, Spark or a shell reports it."""
    return bool(_TEXT.search(text))


def storage_full(cause: str, *, next_step: str | None = None) -> CdiError:
    """Return the failure; the class's own next step unless another is given."""
    return CdiError(FailureClass.STORAGE_FULL, cause, next_step=next_step)
