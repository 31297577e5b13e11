"""Files of this repository as a clone has them."""

import shutil
import subprocess
from pathlib import Path

import pytest

import cdi_dagster

REPOSITORY = Path(cdi_dagster.__file__).parents[1]


def tracked_files() -> list[Path]:
    """Return what is or would be committed; without git, skip the test."""
    if shutil.which("git") is None:
        pytest.skip("git is not on this machine")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := REPOSITORY / name).is_file()]
