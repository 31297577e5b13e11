"""Publications that kill themselves (SIGKILL) before their n-th step on the storage: what `test_kill` starts.

    python -m cdi_dagster_tests.storage.killed_publisher <root with {step}> <first step> <end> <before> <number> <swap>

writes publication <before> to a root of its own for each step, and forks a publisher of <number> that dies before that
step; ends with the first that gets through alive, or before step <end>. Prints the number of the step after the last.
A step is a call of the operating system that changes a name (on folders) or a request (on S3).
"""

import os
import sys

from botocore.client import BaseClient

from cdi_dagster.storage import PreparedObject, Storage, file_publication, file_system, open_storage
from cdi_dagster_tests.kill_points import killing_before, print_kill_points

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
    counted = killing_before(step)
    for name in OS_STEPS:
        setattr(os, name, counted(getattr(os, name)))
    file_publication.exchange = counted(file_system.exchange)  # type: ignore[attr-defined]
    BaseClient._make_api_call = counted(BaseClient._make_api_call)


def whole(number: int) -> dict[str, bytes]:
    """What the prefix holds once publication `number` is there; 0 is none."""
    return {f"{PREFIX}_SUCCESS": b"mark %d" % number} | version(number) if number else {}


def publish_and_die(root: str, before: int, number: int, step: int) -> None:
    storage = open_storage(root)
    for key, data in whole(before).items():
        storage.write(key, data)
    kill_before(step)
    publish_version(storage, number)


def main(template: str, first_step: int, end: int, before: int, number: int, swap: str) -> None:
    if swap == "no-swap":
        file_system.exchange = lambda one, other: False
    print_kill_points(
        lambda step: publish_and_die(template.format(step=step), before, number, step), range(first_step, end)
    )


if __name__ == "__main__":
    first_step, end, before, number = map(int, sys.argv[2:6])
    main(sys.argv[1], first_step, end, before, number, sys.argv[6])
