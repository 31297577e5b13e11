"""The units of deploy/systemd are what systemd takes, hardened, and start what there is."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cdi_dagster_tests.account.stacks import shipped

UNITS = sorted(path for path in shipped("systemd").iterdir())
SERVICES = [path for path in UNITS if path.suffix == ".service"]
MOST_EXPOSED = 20
"""In tenths of systemd's exposure level: below 2 is "OK"; a service without any hardening has 9.6."""


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """Return the units, with this environment in the place of /opt/cdi/venv."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    programs = tmp_path / "bin"  # ExecStart splits a path with a space
    programs.symlink_to(Path(sys.executable).parent)
    for path in UNITS:
        text = path.read_text().replace("/opt/cdi/venv/bin", str(programs))
        (tmp_path / path.name).write_text(text.replace("WorkingDirectory=/opt/cdi", f"WorkingDirectory={tmp_path}"))
    return [str(tmp_path / path.name) for path in UNITS]


def test_systemd_takes_them(installed: list[str]) -> None:
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *installed], capture_output=True, text=True, check=False
    )
    ours = [line for line in verified.stderr.splitlines() if "cdi-" in line]
    assert (ours, verified.returncode) == ([], 0), verified.stderr


def test_they_may_do_little(installed: list[str]) -> None:
    if "--offline" not in subprocess.run(["systemd-analyze", "--help"], capture_output=True, text=True).stdout:
        pytest.skip("systemd-analyze of this machine rates no files (security --offline: systemd 250)")
    for unit in installed:
        if unit.endswith(".service"):
            rated = subprocess.run(
                ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", unit],
                capture_output=True,
                text=True,
                check=False,
            )
            assert rated.returncode == 0, rated.stdout[-300:]


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_each_runs_as_its_own_user_and_writes_its_own_folder_only(path: Path) -> None:
    text = path.read_text()
    for line in ("User=cdi", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "StateDirectory=cdi"):
        assert f"\n{line}\n" in text
    assert re.findall(r"ReadWritePaths|AmbientCapabilities", text) == []
    (program,) = re.findall(r"^ExecStart=/opt/cdi/venv/bin/(\S+)", text, re.MULTILINE)
    assert Path(sys.executable).with_name(program).exists()


def test_nothing_starts_before_the_migration_and_a_new_one_restarts_everything() -> None:
    for name in ("cdi-code", "cdi-daemon", "cdi-webserver"):
        text = shipped(f"systemd/{name}.service").read_text()
        assert re.search(r"^After=.*\bcdi-migrate\.service", text, re.MULTILINE)
        assert "\nRequires=cdi-migrate.service\n" in text
