"""The units of deploy/systemd at work: installed as docs/virtual-machine.md has it, started, and killed."""

import json
import shutil
import sys
from collections.abc import Iterator
from grp import getgrall
from pathlib import Path
from pwd import getpwall

import pytest

from cdi_dagster_tests.account.machine import Machine, booted
from cdi_dagster_tests.account.stacks import shipped
from cdi_dagster_tests.repository.files import REPOSITORY
from cdi_dagster_tests.waiting import wait_until

pytestmark = pytest.mark.daemon

SERVICES = ("cdi-code", "cdi-daemon", "cdi-webserver")
_USER_ID = next(
    number
    for number in range(990, 0, -1)
    if number not in {entry.pw_uid for entry in getpwall()} | {entry.gr_gid for entry in getgrall()}
)
_HOME = "/var/lib/cdi"
_LOCATIONS = """
import json, urllib.request
query = "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"
request = urllib.request.Request("http://127.0.0.1:3000/graphql", json.dumps({"query": query}).encode())
request.add_header("Content-Type", "application/json")
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the installation of the page, of which nothing is started yet."""
    if not REPOSITORY.stat().st_mode & Path(__file__).stat().st_mode & 0o004:
        pytest.skip("the checkout is not readable by other users, as the one that the units run as")
    folder = tmp_path_factory.mktemp("machine")
    installed = folder / "installed"
    units = installed / "etc/systemd/system"
    home = installed / _HOME.strip("/") / "dagster_home"
    for place in (units, home, home.parent / "published", installed / "opt/cdi"):
        place.mkdir(parents=True)
    for unit in shipped("systemd").iterdir():
        shutil.copy(unit, units)
        if unit.suffix == ".service":
            # Here this environment is in the place of the one that the page makes, wherever it is.
            (units / f"{unit.name}.d").mkdir()
            seen = f'"{sys.base_prefix}" "{REPOSITORY}"'
            (units / f"{unit.name}.d/here.conf").write_text(f"[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths={seen}\n")
    (installed / "opt/cdi/venv").symlink_to(sys.prefix)
    shutil.copy(shipped("production/workspace.yaml"), installed / "opt/cdi")
    shutil.copy(shipped("dagster.yaml"), home)
    (home.parent / "cdi.env").write_text("CDI_AUTOMATION=true\nCDI_ALERT_TARGET=http://127.0.0.1:9/nobody\n")
    for path in (home.parent, *home.parent.rglob("*")):
        shutil.chown(path, _USER_ID, _USER_ID)
    for name, line in (("passwd", f"{_USER_ID}::{_HOME}:/usr/sbin/nologin"), ("group", "")):
        known = [each for each in Path("/etc", name).read_text().splitlines() if not each.startswith("cdi:")]
        (installed / "etc" / name).write_text("\n".join([*known, f"cdi:x:{_USER_ID}:{line}", ""]))
    with booted(folder) as machine:
        yield machine


def main_process(machine: Machine, unit: str) -> str:
    return machine.show(unit, "MainPID")


def is_well(machine: Machine) -> bool:
    """Whether the daemon's heartbeats are fresh, by `cdi watch`."""
    environment = [f"CDI_HOME={_HOME}", f"DAGSTER_HOME={_HOME}/dagster_home"]
    return machine.run("env", *environment, "/opt/cdi/venv/bin/cdi", "watch", "--only", "daemon").returncode == 0


def is_loaded(machine: Machine) -> bool:
    """Whether the webserver has our code location."""
    found = machine.run("/opt/cdi/venv/bin/python", "-c", _LOCATIONS)
    if found.returncode:
        return False
    entries = json.loads(found.stdout)["data"]["workspaceOrError"]["locationEntries"]
    return [entry["locationOrLoadError"] for entry in entries] == [{"__typename": "RepositoryLocation"}]


def test_the_units_start_and_what_is_killed_is_there_again(machine: Machine) -> None:
    started = machine.run("systemctl", "start", "cdi-migrate", *SERVICES, "cdi-watch.timer")

    def report() -> str:
        return machine.run("journalctl", "--no-pager", "--lines=40", "--output=cat").stdout

    assert started.returncode == 0, started.stderr + report()
    wait_until(lambda: is_loaded(machine), "the webserver has our code", seen=report)
    wait_until(lambda: is_well(machine), "the daemon is alive", seen=report)
    assert machine.show("cdi-migrate", "ActiveState") == "active"
    for unit in SERVICES:
        process = main_process(machine, unit)
        assert machine.run("ps", "-o", "user=", "-p", process).stdout.strip() == "cdi"
        assert (
            machine.run("nsenter", f"--target={process}", "--mount", "--root", "touch", "/opt/written").returncode != 0
        )
        machine.run("kill", "-KILL", process)
    for unit in SERVICES:
        wait_until(lambda unit=unit: machine.show(unit, "NRestarts") == "1", f"{unit} is restarted", seen=report)
        wait_until(lambda unit=unit: machine.show(unit, "ActiveState") == "active", f"{unit} is active", seen=report)
    wait_until(lambda: is_loaded(machine), "the webserver has our code again", seen=report)


def test_the_watch_runs_and_reports_in_the_journal(machine: Machine) -> None:
    machine.run("systemctl", "start", "cdi-watch.service")
    reported = machine.run("journalctl", "--no-pager", "--unit=cdi-watch", "--output=cat").stdout
    assert machine.show("cdi-watch.service", "Result") == "success", reported
    assert "not published" in reported
