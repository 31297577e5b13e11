"""A publication that kills itself (SIGKILL) before its n-th step on the storage: what `test_kill` starts as a child.

A step is a call of the operating system that changes a name (on folders) or a request (on S3).
"""

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from botocore.client import BaseClient

from cdi_dagster.storage import PreparedObject, Storage, file_publication, file_system, open_storage

PREFIX = "out/day/"
OS_STEPS = ("mkdir", "rename", "replace", "unlink", "rmdir")


def version(number: int) -> dict[str, bytes]:
    """What publication `number` holds: its parts differ in name, number and content from the next one's."""
    return {f"{PREFIX}part-{part}-{number}": b"%d " % number * 50 for part in range(2 + number % 2)}


def publish_version(storage: Storage, number: int) -> None:
    group = f"run-{number}"
    prepared: list[PreparedObject] = []
    for key, data in version(number).items():
        with storage.upload(key, group=group) as upload:
            upload.write(data)
            prepared.append(upload.prepare())
    storage.publish(PREFIX, prepared, b"mark %d" % number, group=group)


def kill_before(step: int) -> None:
    """Make this process kill itself before its step of that number, counted from 0."""
    numbers = itertools.count()
    lock = threading.Lock()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with lock:
                if next(numbers) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapper

    for name in OS_STEPS:
        setattr(os, name, counted(getattr(os, name)))
    file_publication.exchange = counted(file_system.exchange)  # type: ignore[attr-defined]
    BaseClient._make_api_call = counted(BaseClient._make_api_call)  # type: ignore[attr-defined]


def run(root: str, number: int, step: int, swap_works: bool, environment: dict[str, str]) -> None:
    """Publish version `number` to the root; killed before step `step`, if it gets that far."""
    os.environ.update(environment)
    if not swap_works:
        file_system.exchange = lambda one, other: False
    kill_before(step)
    publish_version(open_storage(root), number)
    sys.stdout.flush()
    os._exit(0)
