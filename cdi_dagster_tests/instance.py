"""A Dagster instance on a home of its own, for tests of what an instance in memory does not do."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import dagster as dg
from sqlalchemy import event
from sqlalchemy.engine import Engine


@contextmanager
def instance_on_disk() -> Iterator[dg.DagsterInstance]:
    """Yield it; DAGSTER_HOME is its home meanwhile."""
    with tempfile.TemporaryDirectory() as home:
        shutil.copytree(_new_home().name, home, dirs_exist_ok=True)
        with dg.instance_for_test(temp_dir=home) as instance:
            yield instance


@cache
def _new_home() -> "tempfile.TemporaryDirectory[str]":
    """Make a home once: its databases take half a second of CPU, and a copy next to nothing."""
    event.listen(Engine, "connect", _leave_the_disk_to_the_system)
    home = tempfile.TemporaryDirectory()
    with dg.instance_for_test(temp_dir=home.name) as instance:
        instance.get_runs(limit=1)
        instance.all_instigator_state()
    return home


def _leave_the_disk_to_the_system(connection: Any, _record: object) -> None:
    """Wait for no disk: of an instance of SQLite's that is half of the time, and no test survives its machine."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")
