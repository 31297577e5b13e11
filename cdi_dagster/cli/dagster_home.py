"""The Dagster home that a command reads: where it is, and its instance. Imports dagster when called."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cdi_dagster.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

_SQLITE_DATABASES = (
    Path("history", "runs.db"),
    Path("history", "runs", "index.db"),
    Path("schedules", "schedules.db"),
)
"""In the order in which Dagster makes them, when it opens a home for the first time."""


def dagster_home_of(settings: Settings) -> Path:
    """Return the folder of the instance: DAGSTER_HOME, else that of the settings."""
    return Path(os.environ.get("DAGSTER_HOME") or settings.dagster_home)


@contextmanager
def open_instance(home: Path) -> Iterator["DagsterInstance | None"]:
    """Yield the instance of a Dagster home, or None where no Dagster has started yet.

    A command that reads does not make the databases: of two processes that make SQLite's at once, both may write the
    version of the schema, and then no process can open it again ("more than one head").

    Raises:
        Exception: of many kinds, where it cannot be read.
    """
    if not _has_databases(home):
        yield None
        return
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(home)) as instance:
        yield instance


def _has_databases(home: Path) -> bool:
    import yaml

    config = home / "dagster.yaml"
    configured = yaml.safe_load(config.read_text()) if config.is_file() else None
    # Another database than that of the home is made before anything starts: `dagster instance migrate`.
    return "storage" in (configured or {}) or all(_has_version(home / name) for name in _SQLITE_DATABASES)


def _has_version(database: Path) -> bool:
    if not database.is_file():
        return False
    with closing(sqlite3.connect(database)) as connection:
        # Whoever makes a database writes its version last.
        named = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        return bool(named and connection.execute("SELECT 1 FROM alembic_version").fetchone())
