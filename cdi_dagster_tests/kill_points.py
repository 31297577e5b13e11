"""Processes that kill themselves (SIGKILL) before their n-th step, one forked for each n, until one survives."""

import itertools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from cdi_dagster.aws.clients import _shared_loader
from cdi_dagster_tests.waiting import PATIENCE_SECONDS

Function = Callable[..., Any]


def killing_before(step: int) -> Callable[[Function], Function]:
    """Return what counts the calls of functions, and kills this process before the one of that number, from 0."""
    numbers = itertools.count()
    lock = threading.Lock()

    def counted(function: Function) -> Function:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with lock:
                if next(numbers) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapper

    return counted


def print_kill_points(run: Callable[[int], object], steps: Iterable[int]) -> None:
    """Run each step in a fork, which is to kill itself before it; print the number of the step after the last.

    Raises:
        SystemExit: one ended in another way than by its own SIGKILL, or alive.
    """
    _shared_loader().load_service_model("s3", "service-2")  # once, not in each child
    for step in steps:
        child = os.fork()
        if child == 0:
            signal.alarm(int(PATIENCE_SECONDS))  # a step that hangs is killed, and named below
            try:
                run(step)
            except BaseException:  # noqa: BLE001 - whatever it is, the child must not go on as its parent
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if exit_code not in (0, -signal.SIGKILL):
            raise SystemExit(f"step {step}: exit {exit_code}")
        if exit_code == 0:
            break
    print(step + 1)
