"""Stack space for nested JSON, however deep the caller is.

`json_text` limits the depth; up to that limit Python's stack must suffice, however little of it the caller
has left. Internal to `records`.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from cdi_dagster.spark.records.json_text import MAX_DEPTH

P = ParamSpec("P")
T = TypeVar("T")

_ROOM = 2 * MAX_DEPTH  # one frame for each level, and as many again for callers and callees


def with_room_for_nesting(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `work(...)`, repeated on an empty stack with a sufficient limit where it ran out of stack here."""
    try:
        return work(*args, **kwargs)
    except RecursionError:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, _ROOM))
        try:
            with ThreadPoolExecutor(1) as empty_stack:
                return empty_stack.submit(work, *args, **kwargs).result()
        finally:
            sys.setrecursionlimit(limit)
