"""Into how many ranges of ids the rows of a group are divided: one task sorts each, and each becomes a file. Pure."""

import math
import re
from typing import Final

SLICE_BYTES: Final = 256 * 1024**2
"""Compressed input of one file, at most. One task sorts it, in some 1.5 GB of memory."""

LEAST_SLICE_BYTES: Final = 8 * 1024**2
"""Of a snapshot that is too small to keep every core at work with larger ones."""

_ROW_BYTES: Final = 6
"""Of memory for a byte of compressed input."""
_MEMORY = re.compile(r"(\d+)([kmgt]?)b?", re.IGNORECASE)
_UNITS: Final = {"k": 1, "m": 2, "": 2, "g": 3, "t": 4}
_SHARE_OF_TASKS: Final = 0.6
"""Of an executor's memory, by Spark's default: what its tasks sort in, before they write to disk and read again."""


def slices_of(stored_bytes: int, *, cores: int, task_memory_bytes: int) -> int:
    """Return into how many ranges of ids so many bytes are divided."""
    most = max(LEAST_SLICE_BYTES, min(SLICE_BYTES, task_memory_bytes // _ROW_BYTES))
    return max(1, math.ceil(stored_bytes / most), min(cores, math.ceil(stored_bytes / LEAST_SLICE_BYTES)))


def task_memory(executor_memory: str, *, cores: int) -> int:
    """Return the bytes in which one task can sort.

    Args:
        executor_memory: as Spark writes it (`2g`; without a unit it is MB).
        cores: that share it.

    Raises:
        ValueError: it is not so written.
    """
    found = _MEMORY.fullmatch(executor_memory.strip())
    if not found:
        raise ValueError(f"{executor_memory!r} is no memory of Spark's")
    size = int(found[1]) * 1024 ** _UNITS[found[2].lower()]
    return int(size * _SHARE_OF_TASKS) // cores
