"""A real PostgreSQL on a folder and a port of its own, where the machine has one."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cdi_dagster_tests.waiting import reserved_port, wait_until

PASSWORD = "password-of-a-test"


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A server with the database and the user that deploy/production/dagster.yaml names."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What that file takes from the environment."""
        return {"DAGSTER_PG_HOST": "127.0.0.1", "DAGSTER_PG_PORT": str(self.port), "DAGSTER_PG_PASSWORD": PASSWORD}

    @property
    def dsn(self) -> str:
        """For psycopg2."""
        return f"host=127.0.0.1 port={self.port} user=dagster dbname=dagster password={PASSWORD}"


def binaries() -> Path:
    """Return the folder of the server's programs; without one skip the test."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    on_path = shutil.which("initdb")
    found += [Path(on_path).resolve().parent] if on_path else []
    if not found:
        pytest.skip("PostgreSQL is not on this machine (Debian: apt-get install postgresql)")
    return found[0]


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server; it takes no root, so as root it runs as the user `postgres` of the package."""
    programs, is_root = binaries(), os.getuid() == 0
    if is_root and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and this machine has no user postgres")
    user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if is_root else {}
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if is_root:
            shutil.chown(folder, "postgres")
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        login = ["-U", "dagster", "--auth=scram-sha-256", f"--pwfile={folder}/password"]
        make = [str(programs / "initdb"), "-D", f"{folder}/data", *login, "--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **user)
        with reserved_port() as port:
            options = ["-k", str(folder), "-p", str(port), "-h", "127.0.0.1", "-F"]
            server = subprocess.Popen(
                [str(programs / "postgres"), "-D", f"{folder}/data", *options],
                cwd=folder,
                stdout=(folder / "log").open("w"),
                stderr=subprocess.STDOUT,
                **user,
            )
            try:
                ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
                wait_until(
                    lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0,
                    "PostgreSQL takes connections",
                )
                create = [str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "dagster", "dagster"]
                subprocess.run(create, check=True, env={**os.environ, "PGPASSWORD": PASSWORD}, capture_output=True)
                yield Postgres(port=port)
            finally:
                stop = [str(programs / "pg_ctl"), "stop", "-D", f"{folder}/data", "-m", "immediate"]
                subprocess.run(stop, check=False, capture_output=True, cwd=folder, **user)
                server.wait(timeout=60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
