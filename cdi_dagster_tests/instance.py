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


def lines_of_run(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """Return what a run's page says, one string an event; a failure's with its error and its metadata."""
    return [f"{entry.user_message}{_failure_of(entry)}" for entry in instance.all_logs(run_id)]


def _failure_of(entry: dg.EventLogEntry) -> str:
    event = entry.dagster_event
    if event is None or not event.is_step_failure:
        return ""
    failed = event.step_failure_data
    facts = failed.user_failure_data.metadata if failed.user_failure_data else {}
    errors = [failed.error.to_string()] if failed.error else []
    return "\n".join(["", *errors, *(f"{label}: {fact.value}" for label, fact in facts.items())])


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
