"""A machine for a test: systemd as process 1, on a file system that is this one's until it is written. Needs root.

In namespaces of its own (processes, mounts, network): it sees no port and no process of this machine, and nothing that
it writes is left.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cdi_dagster_tests.waiting import last_lines_of, wait_until

SYSTEMD = Path("/lib/systemd/systemd")
_BOOT = """
mount --make-rprivate /
mount -t tmpfs tmpfs "$1/machine"
mkdir "$1"/machine/{changes,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/machine/changes,workdir=$1/machine/work" "$1/machine/root"
cd "$1/machine/root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
rm -rf etc/systemd/system
if [ -d "$1/installed" ]; then cp -a "$1/installed/." .; else mkdir -p etc/systemd/system; fi
ln -s /dev/null etc/systemd/system/systemd-tmpfiles-setup.service  # it would look at every file below /tmp
mkdir before
pivot_root . before
umount --lazy /before
export container=other
exec "$2" --system --unit=basic.target --log-target=null
"""
_NAMESPACES = ("--pid", "--fork", "--kill-child", "--mount", "--net", "--uts", "--ipc", "--cgroup")
_MAY_MOUNT = """
mount -t tmpfs tmpfs "$1"
mkdir "$1"/{changes,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" "$1/root"
"""
"""What a container without privileges, or without a kernel module, refuses."""


class Machine:
    """A machine that has booted; `process` is its process 1, as this machine numbers it."""

    def __init__(self, process: int) -> None:
        self._process = process

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command on it, as root."""
        enter = ["nsenter", f"--target={self._process}", "--all", "--root", "--wd=/"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=False, env=_ENVIRONMENT)

    def show(self, unit: str, what: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--property", what, "--value", unit).stdout.strip()


_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """Yield a machine on which everything of `folder`/installed, where it is there, is laid over this one's files.

    Skips the test where this machine cannot be another one: without root, systemd or namespaces. Where it can, a boot
    that ends or does not come up is a failure.
    """
    programs = all(map(shutil.which, ("unshare", "nsenter", "pgrep")))
    if os.geteuid() != 0 or not SYSTEMD.exists() or not programs:
        pytest.skip("needs root, systemd, util-linux and procps: the units are only verified")
    (folder / "machine").mkdir()
    allowed = subprocess.run(
        ["unshare", *_NAMESPACES, "bash", "-euc", _MAY_MOUNT, "may_mount", str(folder / "machine")],
        capture_output=True,
        text=True,
        check=False,
        env=_ENVIRONMENT,
    )
    if allowed.returncode:
        pytest.skip(f"this machine allows no namespaces with mounts of their own: {allowed.stderr[-200:]}")
    boot = ["unshare", *_NAMESPACES, "bash", "-euc", _BOOT, "boot", str(folder), str(SYSTEMD)]
    with (
        (folder / "boot.log").open("wb") as log,
        subprocess.Popen(boot, stdout=log, stderr=log, env=_ENVIRONMENT) as unshare,
    ):
        try:
            yield _machine(unshare, folder / "boot.log")
        finally:
            unshare.kill()


def _machine(unshare: "subprocess.Popen[bytes]", log: Path) -> Machine:
    """Return the machine once it has booted."""

    def up() -> Machine | None:
        assert unshare.poll() is None, f"the boot ended: {last_lines_of(log)}"
        children = subprocess.run(["pgrep", "--parent", str(unshare.pid)], capture_output=True, text=True, check=False)
        machine = Machine(int(children.stdout)) if children.stdout else None
        return machine if machine and machine.show("basic.target", "ActiveState") == "active" else None

    machine = wait_until(up, "systemd has booted", seen=lambda: last_lines_of(log))
    assert machine is not None
    return machine
