"""`cdi --help` is a tour, quick, and every command of it exists and answers a wrong use with 2."""

import subprocess
import sys

import click
import pytest

from cdi_dagster.cli.app import COMMANDS, cdi
from cdi_dagster_tests.cli.conftest import Cdi
from cdi_dagster_tests.waiting import PATIENCE_SECONDS


def test_tour_names_every_command_and_imports_nothing_heavy() -> None:
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cdi_dagster.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    for entry in COMMANDS:
        assert f"{entry.name} " in answer.stdout
    imported = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines() if "import time:" in line}
    assert not {"dagster", "boto3", "pyspark", "pydantic", "cryptography"} & imported


def test_a_day_by_hand_is_worked_on_without_dagster() -> None:
    check = (
        "import sys, cdi_dagster.cli.ingest, cdi_dagster.cli.tables, cdi_dagster.resources.status_table;"
        " sys.exit('dagster' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False, timeout=PATIENCE_SECONDS).returncode == 0


@pytest.mark.parametrize("name", [entry.name for entry in COMMANDS])
def test_every_command_of_the_tour_exists_takes_json_and_explains_itself(name: str) -> None:
    command = cdi.get_command(click.Context(cdi), name)
    assert isinstance(command, click.Command)
    assert command.help
    leaves = command.commands.values() if isinstance(command, click.Group) else [command]
    for leaf in leaves:
        assert leaf.help
        assert any("--json" in parameter.opts for parameter in leaf.params)


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["status", "--collection", "businessAudit", "--storage-day", "2023-03-26"], "write it as db:name"),
        (["status", "--collection", "data:businessAudit", "--storage-day", "26/03/2023"], "write it as YYYY-MM-DD"),
        (["status", "--collection", "data:businessAudit", "--storage-day", "2023-02-30"], "is not a day"),
        (["status", "--collection", "data:businessAudit", "--storage-day", "9999-12-31"], "the years 1970 to 2999"),
        (["status", "--collection", "data:businessaudit", "--storage-day", "2023-03-26"], "mean data:businessAudit?"),
        (["status", "--storage-day", "2023-03-26"], "Missing option '--collection'"),
        (["sample", "--storage-day", "2023-03-26", "--corporate-root", "s3:/x"], "is not a root: write file:///"),
        (["sample", "--storage-day", "2023-03-26", "--records", "1", "--objects", "2"], "2 objects need at least 2"),
        (
            ["relaunch", "--collection", "data:businessAudit", "--export-day", "2023-03-27", "--to", "2023-03-26"],
            "is before --export-day",
        ),
        (["no-such-command"], "No such command"),
        (["stats"], "did you mean status?"),
    ],
)
def test_wrong_use_exits_2_and_says_how_it_is_right(cdi: Cdi, arguments: list[str], fix: str) -> None:
    answer = cdi(*arguments)
    assert answer.exit_code == 2
    assert fix in answer.stderr
    assert "Traceback" not in answer.stderr


def test_settings_that_cannot_be_used_exit_2_with_each_problem(cdi: Cdi) -> None:
    answer = cdi("doctor", CDI_CORPORATE_ROOT="s3:/x", CDI_MAX_REJECTED="some")
    assert answer.exit_code == 2
    assert "CDI_CORPORATE_ROOT='s3:/x' is not a root" in answer.stderr
    assert "CDI_MAX_REJECTED='some' is not a limit" in answer.stderr
