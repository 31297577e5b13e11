"""Completion as the shell drives it: the program is called with the words and the position of the cursor."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cdi_dagster_tests.cli.conftest import Cdi

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(cdi: Cdi) -> Complete:
    """Return what bash is offered at the last of the words, which are split as bash splits them."""

    def at(*words: str) -> list[str]:
        cursor = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
        answer = cdi(**cursor, _CDI_COMPLETE="bash_complete")
        assert answer.stderr == ""
        return [line.partition(",")[2] for line in answer.stdout.splitlines()]

    return at


def test_commands_and_options_are_completed(complete: Complete) -> None:
    assert complete("cdi", "sta") == ["status"]
    assert complete("cdi", "status", "--coll") == ["--collection"]


@pytest.mark.parametrize("command", ["status", "relaunch", "watch", "sample", "coalesce"])
def test_collections_are_completed(complete: Complete, command: str) -> None:
    assert "data:businessAudit" in complete("cdi", command, "--collection", "")
    assert complete("cdi", command, "--collection", "DATA") == ["data:businessAudit", "data:equality"]


def test_bash_splits_at_the_colon_and_replaces_what_follows_it(complete: Complete) -> None:
    assert complete("cdi", "status", "--collection", "data", ":") == ["businessAudit", "equality"]
    assert complete("cdi", "status", "--collection", "data", ":", "eq") == ["equality"]
    assert complete("cdi", "status", "--collection", "data", ":", "equality", "--storage") == ["--storage-day"]


def test_the_line_of_the_readme_works_in_a_real_bash(tmp_path: Path) -> None:
    script = """
eval "$(_CDI_COMPLETE=bash_source cdi)"
COMP_WORDS=(cdi status --collection data : bus); COMP_CWORD=5
_cdi_completion cdi
echo "${COMPREPLY[@]}"
"""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "businessAudit"
