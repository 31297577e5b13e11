"""The terminal as a user meets it: a process of its own, in a clean environment, with a home of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cdi_dagster_tests.aws_actions import only_allowed_actions  # noqa: F401 - a fixture of this package
from cdi_dagster_tests.waiting import PATIENCE_SECONDS


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command said."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


Cdi = Callable[..., Answer]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def cdi(home: Path, tmp_path: Path) -> Cdi:
    def run(*arguments: str, **environment: str) -> Answer:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("CDI_", "DAGSTER_HOME"))}
        ended = subprocess.run(
            [sys.executable, "-m", "cdi_dagster.cli", *arguments],
            env={**clean, "CDI_HOME": str(home), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        return Answer(exit_code=ended.returncode, stdout=ended.stdout, stderr=ended.stderr)

    return run
