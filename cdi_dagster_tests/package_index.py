"""What a test needs that makes a bundle: a package index, and a machine as clusters are."""

import platform
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec

import pytest


def require_package_index() -> None:
    """Skip the test where the wheels of a bundle could not be fetched, or not installed here."""
    if platform.machine() != "x86_64":
        pytest.skip("the wheels of a bundle are for x86_64, as clusters are")
    if find_spec("pip") and not _answers():  # without pip a bundle's own failure says so
        pytest.skip("no package index answers, from which a bundle takes its wheels")


@cache
def _answers() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "setuptools"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
