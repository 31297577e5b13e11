"""Room on the stack for nested JSON, wherever the caller stands.

What is too deep is counted by `json_text`; up to there Python's stack has to do, however little of it our caller has
left. Internal to `records`.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from cdi_dagster.spark.records.json_text import MAX_DEPTH

P = ParamSpec("P")
T = TypeVar("T")

_ROOM = 2 * MAX_DEPTH  # one frame for each level, and as many again for what stands above and below


def with_room_for_nesting(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `work(...)`, done again on an empty stack of a sufficient limit where it ran out of stack here."""
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
